// Events as lanes under the waveform, with the scores that they are detected in: one canvas, and a name per lane.
//
// Conventions: the canvas is a picture for the eye and the pointer; the table of events says the same in text.

import { clock } from "./format.js";

const MOST_LANES = 60;
const LANE_PX = { wide: 34, narrow: 46 };
const NAME_PX = 16; // of a narrow lane, above its scores
const NEAR_PX = 4;

export class Timeline {
  // names: a list for the lanes' names; onPick gets the event that was clicked, onSeek a position, onPoint the text of a tip.
  constructor(canvas, names, { onPick, onSeek, onPoint }) {
    Object.assign(this, { canvas, names, lanes: [], events: [], view: null, timeS: 0, selected: null, hidden: 0, limit: 12 });
    canvas.addEventListener("click", (pointer) => {
      const event = this.eventAt(pointer);
      if (event) onPick(event);
      else onSeek(this.timeAt(pointer));
    });
    canvas.addEventListener("pointermove", (pointer) => {
      const event = this.eventAt(pointer);
      canvas.classList.toggle("over-event", Boolean(event));
      onPoint(this.tip(pointer, event), pointer);
    });
    canvas.addEventListener("pointerleave", () => onPoint(null));
  }

  // lanes: [{label, column, limits, events, colour}]; edges: of the steps.
  show(lanes, edges) {
    const shown = Math.min(lanes.length, this.limit, MOST_LANES);
    Object.assign(this, { lanes: lanes.slice(0, shown), edges, hidden: lanes.length - shown });
    this.events = this.lanes.flatMap(({ events }) => events);
    this.names.replaceChildren(
      ...this.lanes.map(({ label, colour, events }) => {
        const item = document.createElement("li");
        const name = document.createElement("span");
        item.style.setProperty("--lane", colour);
        item.title = `${label}: ${events.length}`;
        name.textContent = label;
        item.append(name);
        return item;
      }),
    );
    this.draw();
  }

  get isNarrow() {
    return getComputedStyle(this.names).position === "absolute";
  }

  draw(view = this.view, timeS = this.timeS) {
    Object.assign(this, { view, timeS, drawn: this.selected });
    const lanePx = this.isNarrow ? LANE_PX.narrow : LANE_PX.wide;
    this.names.style.setProperty("--lane-height", `${lanePx}px`);
    this.canvas.style.height = `${lanePx * this.lanes.length}px`;
    if (!view) return;
    const scale = devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, lanePx * this.lanes.length];
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    const inks = { line: style.getPropertyValue("--line"), quiet: style.getPropertyValue("--quiet"), ink: style.getPropertyValue("--ink") };
    this.lanes.forEach((lane, row) => this.drawLane(context, lane, row * lanePx, lanePx, width, inks));
  }

  // Draws anew if other events sound at a position than before.
  mark(timeS) {
    const { events } = this;
    const isOn = (at) => (event) => at >= event.start_s && at < event.end_s;
    const changes = events.some((event) => isOn(timeS)(event) !== isOn(this.timeS)(event));
    if (changes || this.selected !== this.drawn) this.draw(this.view, timeS);
    else this.timeS = timeS;
  }

  drawLane(context, lane, top, lanePx, width, inks) {
    const from = top + (this.isNarrow ? NAME_PX : 5);
    const bottom = top + lanePx - 5;
    const x = (timeS) => (timeS - this.view.startS) * this.view.pxPerS;
    context.fillStyle = inks.line;
    context.fillRect(0, top + lanePx - 1, width, 1);
    const area = this.area(lane.column, from, bottom, width);
    context.fillStyle = inks.quiet;
    context.fill(area);
    for (const event of lane.events) {
      const [left, right] = [x(event.start_s), Math.max(x(event.end_s), x(event.start_s) + 2)];
      if (right < 0 || left > width) continue;
      const isOn = this.timeS >= event.start_s && this.timeS < event.end_s;
      context.fillStyle = lane.colour;
      context.globalAlpha = isOn ? 0.42 : 0.2;
      box(context, left, from - 2, right - left, bottom - from + 4);
      context.fill();
      context.globalAlpha = 1;
      context.save();
      context.clip();
      context.fill(area);
      context.restore();
      if (event === this.selected || isOn) {
        context.strokeStyle = event === this.selected ? inks.ink : lane.colour;
        context.lineWidth = event === this.selected ? 2 : 1.5;
        box(context, left + 1, from - 1, Math.max(1, right - left - 2), bottom - from + 2);
        context.stroke();
      }
    }
    const y = bottom - lane.limits.on * (bottom - from);
    context.strokeStyle = inks.ink;
    context.globalAlpha = 0.35;
    context.lineWidth = 1;
    context.setLineDash([3, 4]);
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  // The scores of a lane as an area: of each pixel the highest.
  area(column, from, bottom, width) {
    const { startS, pxPerS } = this.view;
    const path = new Path2D();
    path.moveTo(0, bottom);
    const first = this.stepAt(startS);
    for (let step = first; step < column.length; ) {
      const left = Math.max(0, (this.edges[step] - startS) * pxPerS);
      if (left > width) break;
      let score = column[step++];
      while (step < column.length && (this.edges[step] - startS) * pxPerS < left + 1) score = Math.max(score, column[step++]);
      const y = bottom - score * (bottom - from);
      path.lineTo(left, y);
      path.lineTo(Math.min(width, (this.edges[step] - startS) * pxPerS), y);
    }
    path.lineTo(Math.min(width, (this.edges.at(-1) - startS) * pxPerS), bottom);
    path.closePath();
    return path;
  }

  stepAt(timeS) {
    const stepS = this.edges.length > 2 ? this.edges[1] - this.edges[0] : 1;
    return Math.max(0, Math.min(this.edges.length - 2, Math.floor((timeS - this.edges[0]) / stepS)));
  }

  timeAt(pointer) {
    return this.view.startS + pointer.offsetX / this.view.pxPerS;
  }

  laneAt(pointer) {
    return this.lanes[Math.floor((pointer.offsetY / this.canvas.clientHeight) * this.lanes.length)];
  }

  eventAt(pointer) {
    if (!this.view) return null;
    const [timeS, nearS] = [this.timeAt(pointer), NEAR_PX / this.view.pxPerS];
    const distance = (event) => Math.max(event.start_s - timeS, timeS - event.end_s, 0);
    const near = (this.laneAt(pointer)?.events ?? []).filter((event) => distance(event) <= nearS);
    return near.sort((one, other) => distance(one) - distance(other))[0] ?? null;
  }

  tip(pointer, event) {
    const lane = this.laneAt(pointer);
    if (!lane || !this.view) return null;
    const timeS = this.timeAt(pointer);
    const score = lane.column[this.stepAt(timeS)] ?? 0;
    const span = event ? ` · event ${clock(event.start_s)} – ${clock(event.end_s)}` : "";
    return `${lane.label} · ${clock(timeS)} · score ${score.toFixed(2)}${span}`;
  }
}

// The marks of a ruler for a view: the smallest round step with room for its text.
export function ruler(view, roomPx = 72) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const step = steps.find((one) => one * view.pxPerS >= roomPx) ?? 7200;
  const marks = [];
  for (let number = Math.ceil(view.startS / step); number * step <= view.endS; number++) {
    marks.push({ x: (number * step - view.startS) * view.pxPerS, text: clock(number * step, step < 1 ? 1 : 0) });
  }
  return marks;
}

function box(context, x, y, width, height) {
  context.beginPath();
  context.roundRect(x, y, Math.max(1, width), height, Math.min(4, width / 2));
}
