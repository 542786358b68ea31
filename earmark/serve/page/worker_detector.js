// Scores of steps, one after the other -> starts and ends of events, as soon as they are certain.
//
// Source: earmark/events/online.py. Conventions: limits are {on, off} thresholds, one per label, and {min_duration_s,
// merge_gap_s}; times are seconds from the start of the stream.

const ROUNDING_S = 1e-6;

export class OnlineDetector {
  #labels;
  #limits;
  #sounds = new Map(); // index of the label -> what is known of an event that is on or may go on

  constructor(labels, limits) {
    this.#labels = labels;
    this.#limits = limits;
  }

  // Adds a step {start_s, end_s, scores}; returns what it settles, in order of the labels.
  push(step) {
    const notices = [];
    step.scores.forEach((score, index) => {
      const isInside = score >= this.#limits.off[index];
      if (!isInside && !this.#sounds.has(index)) return;
      if (!this.#sounds.has(index)) this.#sounds.set(index, newSound());
      const sound = this.#sounds.get(index);
      if (isInside) {
        if (this.#goOn(sound, index, step, score)) notices.push(this.#notice("event_start", index));
      } else if (!this.#pauses(sound, step)) {
        if (sound.isAnnounced) notices.push(this.#notice("event_end", index));
        this.#sounds.delete(index);
      }
    });
    return notices;
  }

  // Ends the events that are on.
  finish() {
    const on = [...this.#sounds.keys()].filter((index) => this.#sounds.get(index).isAnnounced);
    const notices = on.sort((one, other) => one - other).map((index) => this.#notice("event_end", index));
    this.#sounds.clear();
    return notices;
  }

  // A step of at least the off threshold; whether the event is to be announced.
  #goOn(sound, index, step, score) {
    if (!sound.isInside) Object.assign(sound, { isInside: true, hasReached: false, runStart_s: step.start_s });
    sound.highest = Math.max(sound.highest, score);
    sound.hasReached ||= score >= this.#limits.on[index];
    if (!sound.hasReached) return false;
    if (sound.end_s === null) sound.start_s = sound.runStart_s;
    sound.peak = Math.max(sound.peak, sound.highest);
    sound.highest = 0;
    sound.end_s = step.end_s;
    const isNew = !sound.isAnnounced && sound.end_s - sound.start_s >= this.#limits.min_duration_s - ROUNDING_S;
    sound.isAnnounced ||= isNew;
    return isNew;
  }

  // A step below the off threshold; whether the event may still go on, because the gap is short.
  #pauses(sound, step) {
    sound.isInside = false;
    return sound.end_s !== null && step.end_s - sound.end_s <= this.#limits.merge_gap_s + ROUNDING_S;
  }

  #notice(type, index) {
    const { start_s, end_s, peak } = this.#sounds.get(index);
    const notice = { type, label: this.#labels[index], start_s: round(start_s, 3) };
    if (type === "event_end") notice.end_s = round(end_s, 3);
    return { ...notice, score: round(peak, 4) };
  }
}

function newSound() {
  return { runStart_s: 0, isInside: false, hasReached: false, start_s: 0, end_s: null, isAnnounced: false, peak: 0, highest: 0 };
}

export function round(value, digits) {
  return Number(value.toFixed(digits));
}
