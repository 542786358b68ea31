// Cuts a stream of samples into windows, and averages the scores of windows over steps of one hop.
//
// Source: earmark/audio/windows.py and earmark/events/windows.py. Conventions: mono Float32Array at the model's
// rate; lengths and starts in samples, times in seconds.

const ROUNDING_S = 1e-6;

export class WindowCutter {
  #length;
  #hop;
  #padding;
  #held = new Float32Array(0); // the last samples of the stream
  #received = 0;
  #next = 0; // start of the next window

  constructor({ window, hop }, padding) {
    this.#length = window;
    this.#hop = hop;
    this.#padding = padding;
  }

  // Adds a block; returns the windows that it completes, [{start, samples}].
  push(block) {
    const samples = joined(this.#held, block);
    const origin = this.#received - this.#held.length;
    this.#received += block.length;
    const windows = [];
    for (; this.#next + this.#length <= this.#received; this.#next += this.#hop) {
      const first = this.#next - origin;
      windows.push({ start: this.#next, samples: samples.slice(first, first + this.#length) });
    }
    this.#held = samples.slice(Math.max(0, samples.length - this.#length));
    return windows;
  }

  // Ends the stream; returns its last window, which ends with it, unless the windows before it reach the end.
  finish() {
    if (!this.#received) throw new RangeError("the recording has no samples");
    const covered = this.#next - this.#hop + Math.max(this.#length, this.#hop);
    if (this.#next && this.#received <= covered) return [];
    const start = this.#received - this.#held.length;
    return [{ start, samples: padded(this.#held, this.#length, this.#padding) }];
  }
}

function padded(samples, length, padding) {
  if (samples.length >= length) return samples;
  const window = new Float32Array(length);
  if (padding === "repeat") for (let at = 0; at < length; at += samples.length) window.set(samples.subarray(0, length - at), at);
  else window.set(samples);
  return window;
}

function joined(one, other) {
  const both = new Float32Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

// Scores of windows, which may overlap -> scores over time: in each step the mean of the windows over it, weighted by
// how much of the step they cover.
export class ScoreAverager {
  #hop_s;
  #first = 0; // the first step that is not settled
  #steps = []; // from there on: {total, weight}
  #end_s = 0;

  constructor(hop_s) {
    this.#hop_s = hop_s;
  }

  add(start_s, end_s, scores) {
    const hop_s = this.#hop_s;
    const first = Math.max(this.#first, Math.trunc((start_s + ROUNDING_S) / hop_s));
    const last = Math.ceil((end_s - ROUNDING_S) / hop_s);
    while (this.#first + this.#steps.length < last) this.#steps.push({ total: new Float32Array(scores.length), weight: 0 });
    for (let step = first; step < last; step++) {
      const share = (Math.min((step + 1) * hop_s, end_s) - Math.max(step * hop_s, start_s)) / hop_s;
      const open = this.#steps[step - this.#first];
      for (let index = 0; index < scores.length; index++) open.total[index] += share * scores[index];
      open.weight += share;
    }
    this.#end_s = end_s;
  }

  // The step that a window on the grid settles, {start_s, end_s, scores}; null for a last window off the grid.
  settledBy(start_s) {
    const isOnGrid = Math.abs(start_s - this.#first * this.#hop_s) < ROUNDING_S;
    if (!isOnGrid || !this.#steps.length) return null;
    const open = this.#steps.shift();
    return this.#settled(open, this.#first++, !this.#steps.length);
  }

  // Settles the steps that are left; the last one ends with the last window.
  finish() {
    const open = this.#steps;
    const settled = open.map((step, index) => this.#settled(step, this.#first + index, index === open.length - 1));
    this.#first += open.length;
    this.#steps = [];
    return settled;
  }

  #settled({ total, weight }, number, isLast) {
    const start_s = number * this.#hop_s;
    const end_s = isLast ? Math.min(start_s + this.#hop_s, this.#end_s) : start_s + this.#hop_s;
    return { start_s, end_s, scores: total.map((value) => value / Math.max(weight, 1e-38)) };
  }
}
