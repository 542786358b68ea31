// Dark and light: what the system prefers, until the switch says otherwise.
//
// Conventions: the choice is kept in this browser only; "themechange" is sent to the document when colours change.

import { ramp } from "./spectrogram.js";

const KEY = "earmark.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

// Colours of the spectrogram, from silence to the loudest.
const RAMPS = {
  light: [[250, 250, 252], [214, 229, 240], [122, 178, 204], [38, 116, 150], [14, 62, 96], [8, 24, 48]],
  dark: [[15, 18, 25], [38, 30, 78], [106, 40, 120], [188, 64, 104], [240, 128, 76], [252, 232, 176]],
};

export function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

// What canvases are drawn with: {lanes, ramp, wave}.
export function palette() {
  const style = getComputedStyle(root);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    lanes: value("--lanes").split(",").map((colour) => colour.trim()),
    ramp: ramp(RAMPS[isDark() ? "dark" : "light"]),
    wave: { waveColor: value("--wave"), progressColor: value("--accent") },
  };
}

export function bindSwitch(button) {
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    document.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
}

function store(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // storage is blocked: the choice lasts as long as the page
  }
}

try {
  const stored = localStorage.getItem(KEY);
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
} catch {
  // storage is blocked: the system's choice
}
