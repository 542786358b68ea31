// Spectrograms on a canvas: of the visible part of a recording, and of live sound as it scrolls by.
//
// Conventions: a column is Float32Array of levels in dB relative to full scale, one per row, the highest frequency first;
// rows are evenly spaced on the mel scale. Only what is visible is computed, so that an hour costs what a minute does.

import FFT from "./vendor/fft.js";

const SIZE = 1024;
const TILE = 128; // columns
const MOST_TILES = 48;
const FRAMES_PER_COLUMN = 4;
const RANGE_DB = 75;
const MEL = { of: (hz) => 1127 * Math.log1p(hz / 700), hz: (mel) => 700 * Math.expm1(mel / 1127) };

// Frequency bands of the rows of a picture: levels(samples, first) is the column of the frame that starts there.
export class Bands {
  constructor(sampleRate, rows) {
    this.topHz = Math.min(16000, sampleRate / 2);
    this.rows = rows;
    this.fft = new FFT(SIZE, sampleRate, "hann");
    this.frame = new Float32Array(SIZE);
    const bin = (row) => (MEL.hz(MEL.of(this.topHz) * (1 - row / rows)) / sampleRate) * SIZE;
    this.ranges = Array.from({ length: rows }, (_, row) => [bin(row + 1), bin(row)]);
  }

  // The share of the height, from the top, at which a frequency is.
  position(hz) {
    return 1 - MEL.of(hz) / MEL.of(this.topHz);
  }

  power(samples, first) {
    this.frame.fill(0);
    const from = Math.max(0, first);
    this.frame.set(samples.subarray(from, Math.max(from, Math.min(samples.length, first + SIZE))), from - first);
    const magnitudes = this.fft.calculateSpectrum(this.frame);
    return this.ranges.map(([low, high]) => bandPower(magnitudes, low, high));
  }

  levels(samples, firsts) {
    const sums = new Float32Array(this.rows);
    for (const first of firsts) this.power(samples, first).forEach((value, row) => (sums[row] += value));
    return sums.map((sum) => 10 * Math.log10(sum / firsts.length + 1e-12));
  }
}

// The spectrogram of a recording, drawn for a view {startS, endS, pxPerS, scrollPx}.
export class Spectrogram {
  constructor(canvas, colours) {
    Object.assign(this, { canvas, colours, samples: null, view: null, tiles: new Map(), waiting: 0 });
  }

  load(samples, sampleRate) {
    Object.assign(this, { samples, sampleRate, tiles: new Map() });
    if (!samples) return;
    this.bands = new Bands(sampleRate, this.canvas.clientHeight || 128);
    this.topDb = loudest(this.bands, samples);
  }

  recolour(colours) {
    this.colours = colours;
    this.tiles.clear();
    this.draw(this.view);
  }

  draw(view) {
    if (!view || !this.samples) return;
    if (view.pxPerS !== this.view?.pxPerS) this.tiles.clear();
    this.view = view;
    cancelAnimationFrame(this.waiting);
    this.paint();
  }

  // Draws the tiles that are there, and computes one that is missing before the next frame.
  paint() {
    const { canvas, view, tiles } = this;
    const context = sized(canvas, canvas.clientWidth, this.bands.rows);
    context.fillStyle = rgb(this.colours[0]);
    context.fillRect(0, 0, canvas.width, canvas.height);
    const last = Math.floor((view.scrollPx + canvas.width) / TILE);
    let missing = null;
    for (let number = Math.floor(view.scrollPx / TILE); number <= last; number++) {
      if (tiles.has(number)) context.drawImage(tiles.get(number), Math.round(number * TILE - view.scrollPx), 0);
      else missing ??= number;
    }
    canvas.dataset.complete = String(missing === null);
    if (missing === null) return;
    this.waiting = requestAnimationFrame(() => {
      if (tiles.size >= MOST_TILES) tiles.delete(tiles.keys().next().value);
      tiles.set(missing, this.compute(missing));
      this.paint();
    });
  }

  compute(number) {
    const tile = new OffscreenCanvas(TILE, this.bands.rows);
    const image = new ImageData(TILE, this.bands.rows);
    const step = this.sampleRate / this.view.pxPerS;
    const frames = Math.max(1, Math.min(FRAMES_PER_COLUMN, Math.round(step / SIZE)));
    for (let column = 0; column < TILE; column++) {
      const at = (number * TILE + column) * step;
      if (at > this.samples.length) break;
      const firsts = Array.from({ length: frames }, (_, frame) => Math.round(at + ((frame + 0.5) * step) / frames - SIZE / 2));
      paintColumn(image, column, this.bands.levels(this.samples, firsts), this.colours, this.topDb);
    }
    tile.getContext("2d").putImageData(image, 0, 0);
    return tile;
  }
}

// A spectrogram that scrolls to the left as samples come.
export class LiveSpectrogram {
  constructor(canvas, colours, sampleRate, pxPerS = 40) {
    Object.assign(this, { canvas, colours, step: sampleRate / pxPerS, at: 0, rest: new Float32Array(0) });
    this.bands = new Bands(sampleRate, canvas.clientHeight || 128);
    this.context = sized(canvas, canvas.clientWidth, this.bands.rows);
    this.context.fillStyle = rgb(colours[0]);
    this.context.fillRect(0, 0, canvas.width, canvas.height);
  }

  feed(block) {
    const samples = new Float32Array(this.rest.length + block.length);
    samples.set(this.rest);
    samples.set(block, this.rest.length);
    const columns = [];
    for (; this.at + SIZE <= samples.length; this.at += this.step) {
      columns.push(this.bands.levels(samples, [Math.round(this.at)]));
    }
    const used = Math.min(Math.floor(this.at), samples.length);
    this.rest = samples.slice(used);
    this.at -= used;
    if (columns.length) this.scroll(columns);
  }

  scroll(columns) {
    const { canvas, context } = this;
    const image = new ImageData(columns.length, this.bands.rows);
    columns.forEach((levels, column) => paintColumn(image, column, levels, this.colours, -25));
    context.drawImage(canvas, -columns.length, 0);
    context.putImageData(image, canvas.width - columns.length, 0);
  }
}

// 256 colours between the given ones, [red, green, blue] each.
export function ramp(stops) {
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1);
    const first = Math.min(stops.length - 2, Math.floor(place));
    return stops[first].map((value, channel) => value + (place - first) * (stops[first + 1][channel] - value));
  });
}

function bandPower(magnitudes, low, high) {
  const first = Math.ceil(low);
  const last = Math.min(magnitudes.length - 1, Math.floor(high));
  if (last < first) {
    const below = Math.max(0, Math.min(magnitudes.length - 2, Math.floor(low)));
    const share = (low + high) / 2 - below;
    return (magnitudes[below] * (1 - share) + magnitudes[below + 1] * share) ** 2;
  }
  let sum = 0;
  for (let bin = first; bin <= last; bin++) sum += magnitudes[bin] ** 2;
  return sum / (last - first + 1);
}

// The level that is drawn as the brightest: that of the loudest of some frames of the recording.
function loudest(bands, samples) {
  let best = -100;
  for (let frame = 0; frame < 160; frame++) {
    const levels = bands.levels(samples, [Math.floor((frame / 160) * samples.length)]);
    best = Math.max(best, ...levels);
  }
  return best - 6;
}

function paintColumn(image, column, levels, colours, topDb) {
  levels.forEach((level, row) => {
    const share = Math.min(1, Math.max(0, 1 + (level - topDb) / RANGE_DB));
    const [red, green, blue] = colours[Math.round(share * 255)];
    image.data.set([red, green, blue, 255], 4 * (row * image.width + column));
  });
}

function sized(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return canvas.getContext("2d");
}

const rgb = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;
