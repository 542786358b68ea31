// The events as a table: what a screen reader reads, and what is clicked beside the timeline.

import { clock } from "./format.js";

const MOST_ROWS = 200;

export class EventTable {
  // body: the table's; more: a button that shows further rows; onPlay gets the event.
  constructor(body, more, { onPlay }) {
    Object.assign(this, { body, more, onPlay, events: [], rows: new Map(), limit: MOST_ROWS });
    more.addEventListener("click", () => {
      this.limit += MOST_ROWS;
      this.render();
    });
  }

  // colours: label -> colour.
  show(events, colours) {
    Object.assign(this, { events, colours, limit: MOST_ROWS });
    this.render();
  }

  render() {
    const shown = this.events.slice(0, this.limit);
    this.rows = new Map(shown.map((event) => [event, this.row(event)]));
    this.body.replaceChildren(...this.rows.values());
    this.more.hidden = shown.length === this.events.length;
    this.more.textContent = `Show more (${this.events.length - shown.length} left)`;
  }

  row(event) {
    const row = document.createElement("tr");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "play-row";
    button.setAttribute("aria-label", `Play ${describe(event)}`);
    button.innerHTML = '<svg viewBox="0 0 12 12" aria-hidden="true"><path d="M3 1.5v9l7.5-4.5z"/></svg>';
    row.append(cell(button, "td"), this.name(event), cell(clock(event.start_s)), cell(clock(event.end_s)));
    row.append(cell(`${(event.end_s - event.start_s).toFixed(1)} s`, "td", "length"), this.score(event));
    row.addEventListener("click", () => this.onPlay(event));
    return row;
  }

  name(event) {
    const name = cell(event.label, "th");
    name.scope = "row";
    name.style.setProperty("--lane", this.colours.get(event.label));
    return name;
  }

  score(event) {
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.setProperty("--share", event.peak);
    bar.style.setProperty("--lane", this.colours.get(event.label));
    const score = cell(event.peak.toFixed(2), "td", "score");
    score.append(bar);
    return score;
  }

  // Marks the events that sound at a position, and the selected one.
  mark(timeS, selected, isPlaying) {
    for (const [event, row] of this.rows) {
      const isOn = isPlaying && timeS >= event.start_s && timeS < event.end_s;
      if (row.classList.contains("is-on") !== isOn) row.classList.toggle("is-on", isOn);
      if (event === selected) row.setAttribute("aria-current", "true");
      else if (row.hasAttribute("aria-current")) row.removeAttribute("aria-current");
    }
  }

  // Makes sure that an event has a row, and scrolls the table to it, but not the page.
  reveal(event) {
    const index = this.events.indexOf(event);
    if (index >= this.limit) {
      this.limit = MOST_ROWS * Math.ceil((index + 1) / MOST_ROWS);
      this.render();
    }
    const row = this.rows.get(event);
    const frame = this.body.closest(".scroller");
    const head = this.body.parentElement.tHead.offsetHeight;
    const bottom = row.offsetTop + row.offsetHeight - frame.clientHeight;
    frame.scrollTop = Math.min(row.offsetTop - head, Math.max(frame.scrollTop, bottom));
  }
}

// An event in words.
export function describe(event) {
  return `${event.label}, ${clock(event.start_s)} to ${clock(event.end_s)}, score ${event.peak.toFixed(2)}`;
}

function cell(content, kind = "td", className = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.append(content);
  return made;
}
