// Live mode: microphone -> model -> the labels with the highest scores and a log of events, with a scrolling spectrogram.

import { clock } from "./format.js";
import { levelDb, openMicrophone } from "./microphone.js";
import { Problem } from "./problem.js";
import { LiveSpectrogram } from "./spectrogram.js";
import { palette } from "./theme.js";

const TOP = 5;
const MOST_LINES = 200;

export class Live {
  // ui: elements {button, state, time, meter, canvas, top, log, empty}; backend: see main.js.
  constructor(ui, backend, { onProblem, onState }) {
    Object.assign(this, { ui, backend, onProblem, onState, microphone: null, stream: null, picture: null, open: new Map() });
    ui.top.replaceChildren(...Array.from({ length: TOP }, topRow));
    document.addEventListener("themechange", () => this.picture && Object.assign(this.picture, { colours: palette().ramp }));
  }

  get isOn() {
    return Boolean(this.microphone);
  }

  async start(model) {
    this.say("Opening the microphone …");
    this.open.clear();
    this.ui.log.replaceChildren();
    this.ui.empty.hidden = false;
    const early = [];
    try {
      const lost = () => this.fail(new Problem("no_microphone", "the microphone was disconnected"));
      this.microphone = await openMicrophone((block) => this.take(block, early), lost);
      const { sampleRate } = this.microphone;
      this.picture = new LiveSpectrogram(this.ui.canvas, palette().ramp, sampleRate);
      const onMessage = (message) => this.receive(message);
      this.stream = await this.backend.listen({ model, sampleRate, top: TOP, onMessage });
      if (!this.microphone) return this.stream.stop(); // stopped in the meantime
      early.forEach((block) => this.stream.feed(block));
      this.onState();
    } catch (error) {
      this.fail(error);
    }
  }

  stop() {
    this.microphone?.stop();
    this.stream?.stop();
    Object.assign(this, { microphone: null, stream: null });
    this.ui.meter.value = this.ui.meter.min;
    this.say("Stopped.");
    this.onState();
  }

  take(block, early) {
    if (this.stream) this.stream.feed(block);
    else early.push(block);
    this.picture?.feed(block);
    this.ui.meter.value = levelDb(block);
  }

  fail(error) {
    this.stop();
    this.say("Not listening.");
    this.onProblem(error);
  }

  receive(message) {
    if (message.type === "ready") this.say(`Listening with ${message.model}.`);
    if (message.type === "scores") this.showScores(message);
    if (message.type === "event_start") this.startLine(message);
    if (message.type === "event_end") this.endLine(message);
    if (message.type === "error") this.fail(new Problem(message.code, message.message));
  }

  showScores({ time_s, top }) {
    this.ui.time.textContent = clock(time_s);
    [...this.ui.top.children].forEach((row, rank) => {
      const { label, score } = top[rank] ?? { label: "", score: 0 };
      row.querySelector(".label").textContent = label;
      row.querySelector(".value").textContent = label && score.toFixed(2);
      row.querySelector(".bar").style.setProperty("--share", score);
    });
  }

  startLine({ label, start_s }) {
    const line = document.createElement("li");
    line.className = "is-on";
    line.append(text("label", label), text("span", `since ${clock(start_s)}`));
    this.open.set(label, line);
    this.ui.log.prepend(line);
    this.ui.empty.hidden = true;
    while (this.ui.log.children.length > MOST_LINES) this.ui.log.lastElementChild.remove();
  }

  endLine({ label, start_s, end_s, score }) {
    if (!this.open.has(label)) this.startLine({ label, start_s });
    const line = this.open.get(label);
    this.open.delete(label);
    line.className = "";
    line.lastElementChild.textContent = `${clock(start_s)} – ${clock(end_s)} · ${score.toFixed(2)}`;
  }

  say(sentence) {
    this.ui.state.textContent = sentence;
  }
}

function topRow() {
  const row = document.createElement("li");
  row.append(text("label", "–"), text("value", ""), text("bar", ""));
  return row;
}

function text(className, content) {
  const made = document.createElement("span");
  made.className = className;
  made.textContent = content;
  return made;
}
