// Shortcuts of the whole page. Keys belong to a control that uses them itself while it has the focus.

const TYPING = "input:not([type=range]), textarea, select, [contenteditable]";
const PRESSED = "button, a, summary";

// actions: key -> function; a function that returns false leaves the key to the browser.
export function bindKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    if (target.matches?.(TYPING) && key !== "Escape") return;
    if ((key === " " || key === "Enter") && target.matches?.(PRESSED)) return;
    if (key.startsWith("Arrow") && target.matches?.("input[type=range], [role=tab]")) return;
    if (actions[key] && actions[key]() !== false) event.preventDefault();
  });
}
