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
    Object.assign(this, { ui, backend, onProblem, onState, session: null, picture: null, open: new Map() });
    ui.top.replaceChildren(...Array.from({ length: TOP }, topRow));
    document.addEventListener("themechange", () => this.picture && Object.assign(this.picture, { colours: palette().ramp }));
  }

  get isOn() {
    return Boolean(this.session?.isWanted);
  }

  async start(model) {
    const session = (this.session = { isWanted: true, microphone: null, stream: null, early: [] });
    this.clear();
    this.say("Opening the microphone …");
    this.onState();
    try {
      const lost = () => this.fail(session, new Problem("no_microphone", "the microphone was disconnected"));
      session.microphone = await openMicrophone((block) => this.take(session, block), lost);
      if (!session.isWanted) return this.close(session); // stopped in the meantime
      const { sampleRate } = session.microphone;
      this.picture = new LiveSpectrogram(this.ui.canvas, palette().ramp, sampleRate);
      const onMessage = (message) => session === this.session && this.receive(session, message);
      session.stream = await this.backend.listen({ model, sampleRate, top: TOP, onMessage });
      if (!session.isWanted) return this.close(session);
      session.early.forEach((block) => session.stream.feed(block));
    } catch (error) {
      this.fail(session, error);
    }
  }

  stop() {
    if (this.session) this.close(this.session);
    this.ui.meter.value = this.ui.meter.min;
    this.say("Stopped.");
    this.onState();
  }

  close(session) {
    session.isWanted = false;
    session.microphone?.stop();
    session.stream?.stop();
  }

  take(session, block) {
    if (!session.isWanted) return;
    if (session.stream) session.stream.feed(block);
    else session.early.push(block);
    this.picture?.feed(block);
    this.ui.meter.value = levelDb(block);
  }

  fail(session, error) {
    if (!session.isWanted) return;
    this.stop();
    this.say("Not listening.");
    this.onProblem(error);
  }

  clear() {
    this.open.clear();
    this.ui.log.replaceChildren();
    this.ui.empty.hidden = false;
  }

  receive(session, message) {
    if (message.type === "ready") this.say(`Listening with ${message.model}.`);
    if (message.type === "scores") this.showScores(message);
    if (message.type === "event_start") this.startLine(message);
    if (message.type === "event_end") this.endLine(message);
    if (message.type === "error") this.fail(session, new Problem(message.code, message.message));
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
