// Converts the sample rate of a stream, block by block.
//
// The filter is a sinc in a Kaiser window, close to soxr's "HQ": it passes up to 0.91 of the lower rate's Nyquist
// frequency, attenuates by 90 dB above it, and delays nothing. Blocks of any size give the same samples as all at once.
// Rates are whole numbers of Hz.

const ZERO_CROSSINGS = 65; // of the filter, on each side
const BETA = 9; // of the window
const CUTOFF = 0.956; // of the Nyquist frequency, the middle of the transition band
const MAX_PHASES = 2048; // filters that are kept; other positions between two samples are rounded to the next one

export class Resampler {
  #step; // input samples per output sample, as up / down
  #up;
  #phases;
  #reach;
  #scale;
  #filters = new Map();
  #held = new Float32Array(0);
  #origin; // position of the first sample that is held; zeros precede the stream
  #made = 0;
  #received = 0;
  #isSame;

  constructor(fromRate, toRate) {
    const divisor = gcd(fromRate, toRate);
    this.#isSame = fromRate === toRate;
    this.#step = fromRate / divisor;
    this.#up = toRate / divisor;
    this.#phases = Math.min(this.#up, MAX_PHASES);
    this.#scale = CUTOFF * Math.min(1, toRate / fromRate);
    this.#reach = 2 * Math.ceil(ZERO_CROSSINGS / this.#scale / 2); // even
    this.#held = new Float32Array(this.#reach);
    this.#origin = -this.#reach;
  }

  // Adds a block; returns the samples that are ready.
  push(block) {
    if (this.#isSame) return block;
    this.#received += block.length;
    return this.#extend(block, this.#received);
  }

  // Ends the stream; returns the rest.
  finish() {
    if (this.#isSame) return new Float32Array(0);
    return this.#extend(new Float32Array(this.#reach + 1), this.#received + this.#reach + 1);
  }

  #extend(block, end) {
    const samples = new Float32Array(this.#held.length + block.length);
    samples.set(this.#held);
    samples.set(block, this.#held.length);
    const total = Math.min(this.#before(this.#received), this.#before(end - this.#reach));
    const made = new Float32Array(Math.max(0, total - this.#made));
    for (let index = 0; index < made.length; index++) made[index] = this.#sample(samples, this.#made + index);
    this.#made += made.length;
    const first = Math.floor((this.#made * this.#step) / this.#up) - this.#reach; // that the next sample needs
    const kept = Math.min(samples.length, Math.max(0, first - this.#origin));
    this.#held = samples.slice(kept);
    this.#origin += kept;
    return made;
  }

  // How many output samples lie before an input position.
  #before(position) {
    return Math.max(0, Math.ceil((position * this.#up) / this.#step));
  }

  #sample(samples, number) {
    const position = number * this.#step;
    const whole = Math.floor(position / this.#up);
    const phase = Math.round(((position - whole * this.#up) * this.#phases) / this.#up);
    return dot(this.#filter(phase), samples, whole - this.#reach + 1 - this.#origin);
  }

  #filter(phase) {
    let filter = this.#filters.get(phase);
    if (!filter) {
      filter = new Float64Array(2 * this.#reach);
      for (let tap = 0; tap < filter.length; tap++) {
        const distance = tap - this.#reach + 1 - phase / this.#phases;
        filter[tap] = this.#scale * sinc(this.#scale * distance) * kaiser(distance / this.#reach);
      }
      this.#filters.set(phase, filter);
    }
    return filter;
  }
}

// Four sums at a time, which do not wait for each other; the length is a multiple of four.
function dot(filter, samples, first) {
  let [one, two, three, four] = [0, 0, 0, 0];
  for (let tap = 0; tap < filter.length; tap += 4) {
    one += filter[tap] * samples[first + tap];
    two += filter[tap + 1] * samples[first + tap + 1];
    three += filter[tap + 2] * samples[first + tap + 2];
    four += filter[tap + 3] * samples[first + tap + 3];
  }
  return one + two + three + four;
}

const gcd = (one, other) => (other ? gcd(other, one % other) : one);
const sinc = (value) => (value ? Math.sin(Math.PI * value) / (Math.PI * value) : 1);
const kaiser = (place) => (Math.abs(place) < 1 ? bessel(BETA * Math.sqrt(1 - place * place)) / bessel(BETA) : 0);

// The modified Bessel function of order 0.
function bessel(value) {
  let sum = 1;
  for (let term = 1, order = 1; term > 1e-12 * sum; order++) sum += term *= (value / (2 * order)) ** 2;
  return sum;
}
