// The page: models, modes, where recordings come from, and what happens when something fails.

import { isCancelled, explain, Problem } from "./problem.js";
import { bindKeys } from "./keyboard.js";
import { Live } from "./live.js";
import { plural, size } from "./format.js";
import { Recorder } from "./recorder.js";
import { RecordingView } from "./recording.js";
import { bindSwitch } from "./theme.js";

const find = (id) => document.getElementById(id);
const show = (id, isShown) => (find(id).hidden = !isShown);
const announce = (sentence) => (find("status").textContent = sentence);

let backend = null;
let isLocal = false; // the model runs in this browser
let models = [];
let work = null; // AbortController of the analysis that runs
let lastFile = null;
let recorder = null;
let live = null;
const recording = new RecordingView(announce);

async function openBackend() {
  const config = await fetch(new URL("config.json", document.baseURI)).then((found) => found.json()).catch(() => ({}));
  isLocal = config.backend === "local";
  backend = await import(isLocal ? "../backend_local.js" : "./backend_server.js");
  if (isLocal) find("reader").textContent = "this browser plays";
  find("privacy").textContent = isLocal
    ? "Everything is computed in this browser. The recording does not leave this device."
    : `The recording is sent to ${location.host}, and nowhere else. It is not kept.`;
  models = await backend.models();
  const options = models.map(({ name, num_labels: count }) => new Option(`${name} (${plural(count ?? 0, "sound")})`, name));
  find("model").replaceChildren(...options);
  find("model").value = (models.find((model) => model.default) ?? models[0]).name;
  find("model").disabled = false;
  showModel();
}

function showModel() {
  const model = chosen();
  find("model").title = model?.summary ?? "";
  find("live-note").textContent = model?.calibrated ? "Scores are calibrated: probabilities." : "Scores are not probabilities: they rank sounds.";
}

function chosen() {
  return models.find(({ name }) => name === find("model").value);
}

function fail(error) {
  if (isCancelled(error)) return;
  const { title, detail } = explain(error);
  find("problem-title").textContent = title;
  find("problem-detail").textContent = detail;
  show("problem", true);
  if (!error.code) console.error(error);
}

// Analyses a file and shows the result; what was shown before stays if that fails.
async function analyse(file) {
  if (!backend || !models.length) return fail(new Problem("no_model", ""));
  if (!file.size) return fail(new Problem("empty", ""));
  work?.abort();
  const controller = (work = new AbortController());
  const { signal } = controller;
  show("problem", false);
  setWorking(true);
  const upload = `Uploading ${file.name || "the recording"} (${size(file.size)})`;
  const onProgress = (share) => progress(share < 1 && !isLocal ? upload : "Finding sounds …", share);
  onProgress(0);
  const decoding = RecordingView.decode(file, signal).catch(() => null);
  try {
    const answer = await backend.analyse(file, { model: find("model").value, signal, onProgress });
    progress("Drawing …", 1);
    const decoded = await decoding;
    if (signal.aborted) return;
    lastFile = file;
    setWorking(false);
    await recording.show(file, answer, decoded, models.find(({ name }) => name === answer.model));
    announce(`${file.name}: ${find("count").textContent}`);
    find("name").focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    if (work === controller) {
      work = null;
      setWorking(false);
    }
  }
}

function progress(text, share) {
  find("work-text").textContent = text;
  const bar = find("work-progress");
  if (share < 1) bar.value = share;
  else bar.removeAttribute("value");
}

function setWorking(isWorking) {
  show("work", isWorking);
  show("source", !isWorking && !recording.isLoaded);
  show("recorder", false);
  show("result", !isWorking && recording.isLoaded);
}

function cancel() {
  if (!work) return false;
  work.abort();
  work = null;
  setWorking(false);
  announce("Cancelled.");
  return true;
}

function another() {
  recording.close();
  lastFile = null;
  setWorking(false);
  find("choose").focus();
}

function bindSource() {
  const input = find("file");
  find("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) analyse(input.files[0]);
    input.value = "";
  });
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("is-over", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    const [file] = event.dataTransfer.files;
    if (!file) return;
    selectTab("file");
    analyse(file);
  });
  find("cancel").addEventListener("click", cancel);
  find("another").addEventListener("click", another);
  find("model").addEventListener("change", () => {
    showModel();
    if (lastFile) analyse(lastFile);
    if (live.isOn) restartLive();
  });
}

function bindRecorder() {
  const ui = { time: find("recorder-time"), meter: find("recorder-meter") };
  const back = () => (show("recorder", false), show("source", !recording.isLoaded));
  recorder = new Recorder(ui, { onFile: analyse, onProblem: (error) => (back(), fail(error)) });
  find("record").addEventListener("click", async () => {
    show("problem", false);
    try {
      await recorder.start();
      show("source", false);
      show("recorder", true);
      find("recorder-stop").focus();
    } catch (error) {
      fail(error);
    }
  });
  find("recorder-stop").addEventListener("click", () => recorder.finish());
  find("recorder-cancel").addEventListener("click", () => (recorder.cancel(), back()));
}

function bindLive() {
  const button = find("live-button");
  const parts = ["state", "time", "meter", "top", "log", "empty"];
  const ui = Object.fromEntries(parts.map((name) => [name, find(`live-${name}`)]));
  const onState = () => {
    button.textContent = live.isOn ? "Stop" : "Listen";
    button.classList.toggle("is-on", live.isOn);
  };
  const answers = { listen: (options) => backend.listen(options) };
  live = new Live({ ...ui, canvas: find("live-spectrogram") }, answers, { onProblem: fail, onState });
  button.addEventListener("click", () => {
    if (live.isOn) return live.stop();
    show("problem", false);
    if (!models.length) return fail(new Problem("no_model", ""));
    return live.start(find("model").value);
  });
}

function restartLive() {
  live.stop();
  live.start(find("model").value);
}

function selectTab(name) {
  for (const one of ["file", "live"]) {
    const tab = find(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    show(`panel-${one}`, one === name);
  }
  if (name === "live") recording.player.pause();
  else if (live.isOn) live.stop();
}

function bindTabs() {
  for (const [name, other] of [["file", "live"], ["live", "file"]]) {
    find(`tab-${name}`).addEventListener("click", () => selectTab(name));
    find(`tab-${name}`).addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      selectTab(other);
      find(`tab-${other}`).focus();
    });
  }
}

function bindShortcuts() {
  const whenLoaded = (action) => () => recording.isLoaded && !find("panel-file").hidden && !find("result").hidden && action();
  const done = (action) => whenLoaded(() => (action(), true));
  bindKeys({
    " ": done(() => recording.player.toggle()),
    ArrowRight: whenLoaded(() => recording.move(1)),
    ArrowLeft: whenLoaded(() => recording.move(-1)),
    Enter: whenLoaded(() => recording.selected && (recording.hear(recording.selected), true)),
    "+": done(() => recording.player.zoom(2)),
    "=": done(() => recording.player.zoom(2)),
    "-": done(() => recording.player.zoom(0.5)),
    "/": done(() => find("search").focus()),
    "?": () => find("help").showModal(),
    Escape: () => cancel() || clearSearch(),
  });
  find("help-button").addEventListener("click", () => find("help").showModal());
}

function clearSearch() {
  if (!find("search").value || !recording.isLoaded) return false;
  find("search").value = "";
  recording.filter();
  return true;
}

bindSource();
bindRecorder();
bindLive();
bindTabs();
bindShortcuts();
document.addEventListener("themechange", () => recording.recolour());
bindSwitch(find("theme"));
find("problem-close").addEventListener("click", () => show("problem", false));
openBackend().catch(fail).finally(() => (document.body.dataset.ready = "true"));
