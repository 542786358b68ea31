// The result of a recording: player, timeline, table and controls, kept in step.

import { decodeFile, peaksOf } from "./decode.js";
import { detect, highest, limits, readSeries } from "./detect.js";
import { save } from "./downloads.js";
import { describe, EventTable } from "./event_table.js";
import { clock, duration, plural, size } from "./format.js";
import { Player } from "./player.js";
import { Spectrogram } from "./spectrogram.js";
import { palette } from "./theme.js";
import { ruler, Timeline } from "./timeline.js";

const find = (id) => document.getElementById(id);
const [TOP_SCORES, NOTED_HZ] = [8, [500, 1000, 2000, 4000, 8000]];

export class RecordingView {
  // announce: says a sentence to screen readers.
  constructor(announce) {
    Object.assign(this, { announce, threshold: "auto", events: [], shown: [], selected: null, series: null });
    this.colours = palette();
    this.player = new Player(find("waveform"), find("scrollbar"));
    this.spectrogram = new Spectrogram(find("spectrogram"), this.colours.ramp);
    const picked = { onPick: (event) => this.hear(event), onSeek: (timeS) => this.player.seek(timeS) };
    this.timeline = new Timeline(find("lanes"), find("lane-names"), { ...picked, onPoint: (text, pointer) => this.tip(text, pointer) });
    this.table = new EventTable(find("events").tBodies[0], find("rows-more"), { onPlay: (event) => this.hear(event) });
    this.bindPlayer();
    this.bindControls();
  }

  get isLoaded() {
    return Boolean(this.series);
  }

  // Shows a recording and its answer {model, duration_s, timeline, warnings}; decoded: see decode.js.
  async show(file, answer, decoded, model) {
    Object.assign(this, { answer, model, threshold: "auto", selected: null, series: readSeries(answer) });
    this.recording = {
      path: file.name || "recording",
      duration_s: answer.duration_s,
      sample_rate: decoded?.fileRate ?? null,
      model: answer.model,
      calibrated: Boolean(model?.calibrated),
      warnings: answer.warnings ?? [],
    };
    find("search").value = "";
    find("result").hidden = false;
    this.describeRecording(file, decoded);
    this.ranked = highest(this.series);
    this.laneColours = new Map(this.ranked.map(({ label }, index) => [label, this.laneColour(index)]));
    this.showTops();
    this.showThreshold();
    this.spectrogram.load(decoded?.samples ?? null, decoded?.sampleRate);
    this.showFrequencies();
    const peaks = decoded && peaksOf(decoded.samples, decoded.durationS);
    await this.player.load(file, peaks, answer.duration_s, this.colours.wave);
    this.redetect();
  }

  close() {
    this.player.unload();
    this.spectrogram.load(null);
    Object.assign(this, { series: null, selected: null, events: [], shown: [] });
    find("result").hidden = true;
  }

  redetect() {
    if (!this.series) return;
    this.events = detect(this.series, { threshold: this.threshold });
    this.filter();
  }

  filter() {
    const query = find("search").value.trim().toLowerCase();
    this.shown = this.events.filter(({ label }) => label.toLowerCase().includes(query));
    const labels = new Set(this.shown.map(({ label }) => label));
    const same = (event) => event.label === this.selected?.label && event.start_s < this.selected.end_s && event.end_s > this.selected.start_s;
    this.selected = this.selected && (this.shown.find(same) ?? null);
    const all = query && this.shown.length !== this.events.length ? ` of ${this.events.length.toLocaleString("en")}` : "";
    find("count").textContent = `${this.shown.length.toLocaleString("en")}${all} ${this.events.length === 1 ? "event" : "events"}, ${plural(labels.size, "sound")}`;
    find("none").hidden = this.shown.length > 0;
    for (const button of document.querySelectorAll("[data-format]")) button.disabled = !this.shown.length;
    this.table.show(this.shown, this.laneColours);
    this.showLanes(labels);
  }

  showLanes(labels = new Set(this.shown.map(({ label }) => label))) {
    const { series } = this;
    const lanes = this.ranked.filter(({ label }) => labels.has(label)).map(({ label }) => {
      const index = series.labels.indexOf(label);
      const events = this.shown.filter((event) => event.label === label);
      const facts = { limits: limits(series, index, { threshold: this.threshold }), colour: this.laneColours.get(label) };
      return { label, column: series.columns[index], events, ...facts };
    });
    this.timeline.selected = this.selected;
    this.timeline.show(lanes, series.edges);
    const more = find("lanes-more");
    more.hidden = !this.timeline.hidden;
    more.textContent = this.timeline.limit < 60 ? `Show more lanes (${this.timeline.hidden} left)` : `${this.timeline.hidden} more sounds are in the table below; search to see them here`;
    more.disabled = this.timeline.limit >= 60;
    this.drawView();
  }

  hear(event) {
    this.select(event, false);
    this.player.reveal(event.start_s);
    this.player.play(event.start_s, event.end_s);
  }

  // Selects the next (1) or previous (-1) event; without one, that at the position.
  move(step) {
    if (!this.shown.length) return false;
    const at = this.shown.indexOf(this.selected);
    const next = this.shown.findIndex(({ start_s: startS }) => startS >= this.player.timeS);
    const fallback = step > 0 ? (next < 0 ? this.shown.length - 1 : next) : (next < 0 ? this.shown.length : next) - 1;
    const index = at < 0 ? fallback : at + step;
    this.select(this.shown[Math.max(0, Math.min(this.shown.length - 1, index))], true);
    return true;
  }

  select(event, seek) {
    this.selected = event;
    this.timeline.selected = event;
    if (seek && !this.player.isPlaying) this.player.seek(event.start_s);
    else if (seek) this.player.play(event.start_s);
    this.table.reveal(event);
    this.drawTime();
    this.announce(`${describe(event)}, event ${this.shown.indexOf(event) + 1} of ${this.shown.length}`);
  }

  recolour() {
    this.colours = palette();
    this.spectrogram.colours = this.colours.ramp;
    if (!this.series) return;
    this.laneColours = new Map(this.ranked.map(({ label }, index) => [label, this.laneColour(index)]));
    this.player.recolour(this.colours.wave);
    this.spectrogram.recolour(this.colours.ramp);
    this.showTops();
    this.filter();
  }

  bindPlayer() {
    this.player.addEventListener("time", () => this.drawTime());
    this.player.addEventListener("view", () => this.drawView());
    this.player.addEventListener("state", () => {
      find("play").setAttribute("aria-label", this.player.isPlaying ? "Pause" : "Play");
      find("play").classList.toggle("is-playing", this.player.isPlaying);
      this.drawTime();
    });
    this.player.addEventListener("failed", () => this.note("This browser cannot play this kind of file; its events are shown all the same."));
    find("play").addEventListener("click", () => this.player.toggle());
    find("zoom-in").addEventListener("click", () => this.player.zoom(2));
    find("zoom-out").addEventListener("click", () => this.player.zoom(0.5));
    find("spectrogram").addEventListener("click", ({ offsetX }) => this.seekPx(offsetX));
    find("ruler").addEventListener("click", (pointer) => this.seekPx(pointer.clientX - find("ruler").getBoundingClientRect().left));
    find("stack").addEventListener("wheel", (wheel) => this.wheel(wheel), { passive: false });
  }

  bindControls() {
    const slider = find("threshold");
    slider.addEventListener("input", () => this.setThreshold(Number(slider.value)));
    find("threshold-auto").addEventListener("click", () => this.setThreshold("auto"));
    find("search").addEventListener("input", () => this.series && this.filter());
    find("lanes-more").addEventListener("click", () => {
      this.timeline.limit = 60;
      this.showLanes();
    });
    for (const button of document.querySelectorAll("[data-format]")) {
      button.addEventListener("click", () => save(button.dataset.format, this.recording, this.shown));
    }
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    this.showThreshold();
    this.redetect();
  }

  showThreshold() {
    const isOwn = this.threshold === "auto";
    const own = this.series.thresholds.map((one) => one.toFixed(2)).sort();
    const range = own.length ? (own[0] === own.at(-1) ? own[0] : `${own[0]} – ${own.at(-1)}`) : "0.50";
    if (isOwn) find("threshold").value = own[Math.floor(own.length / 2)] ?? 0.5;
    find("threshold-text").textContent = isOwn ? range : this.threshold.toFixed(2);
    find("threshold").setAttribute("aria-valuetext", isOwn ? `the model's own, ${range}` : this.threshold.toFixed(2));
    find("threshold-auto").setAttribute("aria-pressed", String(isOwn));
  }

  describeRecording(file, decoded) {
    const { answer, model, recording, series } = this;
    find("name").textContent = recording.path;
    const warnings = recording.warnings.length ? ` · ${recording.warnings.join("; ")}` : "";
    find("facts").textContent = `${duration(answer.duration_s)} · ${size(file.size)} · ${answer.model}${warnings}`;
    find("total").textContent = clock(answer.duration_s);
    const scores = recording.calibrated ? "Scores are calibrated: probabilities." : "Scores are not probabilities: they rank sounds.";
    find("score-head").textContent = recording.calibrated ? "Peak probability" : "Peak score";
    find("scores-note").textContent = `${scores} One is computed from ${series.resolutionS.toFixed(2)} s of sound: start and end are known no more precisely than that.`;
    find("model-facts").textContent = model?.summary ? `${answer.model}: ${model.summary}` : "";
    this.note(decoded ? "" : "No waveform: this browser cannot decode this file, or it is too long for its memory. The events are complete.");
  }

  note(text) {
    find("picture-note").textContent = text;
    find("picture-note").hidden = !text;
  }

  showTops() {
    const rows = this.ranked.slice(0, TOP_SCORES).map(({ label, score, start_s }) => {
      const row = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.title = `Show only ${label}; highest at ${clock(start_s)}`;
      for (const [name, content] of [["label", label], ["value", score.toFixed(2)], ["bar", ""]]) {
        const part = document.createElement("span");
        Object.assign(part, { className: name, textContent: content });
        button.append(part);
      }
      button.style.setProperty("--share", score);
      button.style.setProperty("--lane", this.laneColours.get(label));
      button.addEventListener("click", () => {
        find("search").value = find("search").value === label ? "" : label;
        this.filter();
      });
      row.append(button);
      return row;
    });
    find("tops").replaceChildren(...rows);
  }

  showFrequencies() {
    const { bands, samples } = this.spectrogram;
    const marks = (samples ? NOTED_HZ : []).filter((hz) => hz < bands.topHz * 0.8).map((hz) => {
      const mark = document.createElement("span");
      mark.textContent = hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`;
      mark.style.top = `${100 * bands.position(hz)}%`;
      return mark;
    });
    find("frequencies").replaceChildren(...marks);
    find("spectrogram").parentElement.hidden = !samples;
    find("waveform").parentElement.classList.toggle("is-flat", !samples);
  }

  drawView() {
    const view = this.player.view();
    if (!view || !this.series) return;
    this.spectrogram.draw(view);
    this.timeline.draw(view, this.player.timeS || -1);
    const marks = ruler(view).map(({ x, text }) => {
      const mark = document.createElement("span");
      mark.textContent = text;
      mark.style.left = `${x}px`;
      return mark;
    });
    find("ruler").replaceChildren(...marks);
    this.drawTime(view);
  }

  drawTime(view = this.player.view()) {
    if (!view || !this.series) return;
    const { timeS } = this.player;
    find("time").textContent = clock(timeS);
    const x = (timeS - view.startS) * view.pxPerS;
    find("cursor").style.transform = `translateX(${x}px)`;
    find("cursor").hidden = x < 0 || x > view.widthPx + 1;
    this.timeline.mark(timeS || this.player.isPlaying || this.selected ? timeS : -1);
    this.table.mark(timeS, this.selected, this.player.isPlaying);
  }

  seekPx(px) {
    const view = this.player.view();
    if (view) this.player.seek(view.startS + px / view.pxPerS);
  }

  wheel(wheel) {
    const view = this.player.view();
    if (!view || !(wheel.ctrlKey || Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY))) return;
    wheel.preventDefault();
    const px = wheel.clientX - find("waveform").getBoundingClientRect().left;
    if (wheel.ctrlKey) this.player.zoom(wheel.deltaY < 0 ? 1.25 : 0.8, view.startS + px / view.pxPerS);
    else this.player.scrollBy(wheel.deltaX);
  }

  tip(text, pointer) {
    const tip = find("tip");
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const left = Math.min(pointer.clientX + 12, innerWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${Math.max(8, left)}px, ${pointer.clientY + 18}px)`;
  }

  laneColour(index) {
    return this.colours.lanes[index % this.colours.lanes.length];
  }

  // The picture of a file, while the server computes: null if there is none.
  static decode(file, signal) {
    return decodeFile(file, signal);
  }
}
