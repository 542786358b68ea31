// A recording in blocks -> its tags, and scores along time.
//
// Source: earmark/inference/tagger.py and local_scores.py. Conventions: what `earmark tag` and `earmark tag --events`
// answer with; where both take the same windows, the network runs once for both. Memory grows with the scores along time
// only.

import { round } from "./worker_detector.js";
import { Resampler } from "./worker_resampler.js";
import { ScoreAverager, WindowCutter } from "./worker_windows.js";

const FAINTEST = 0.05; // labels whose score reaches this anywhere are part of the timeline

export class Analysis {
  #model;
  #card;
  #duration_s;
  #resampler;
  #tags;
  #series;
  #lengths_s = { count: 0, longest: 0 }; // of the windows along time
  #cutters; // [cutter, what to do with its windows]

  // sampleRate: of the blocks. duration_s: of the recording, so that windows end with it.
  constructor(model, { sampleRate, duration_s }) {
    const card = model.card;
    this.#resampler = new Resampler(sampleRate, card.sample_rate_hz);
    this.#model = model;
    this.#card = card;
    this.#duration_s = duration_s;
    this.#tags = new WindowPooling(card.task === "multi_label");
    this.#series = new ScoreAverager(card.timeline.hop_s);
    const cut = (lengths) => new WindowCutter(lengths, card.padding);
    const { window, hop } = card.timeline;
    if (window === card.tagging.window && hop === card.tagging.hop)
      this.#cutters = [[cut(card.tagging), (one) => this.#runBoth(one)]];
    else
      this.#cutters = [
        [cut(card.tagging), (one) => this.#runTagging(one)],
        [cut(card.timeline), (one) => this.#runTimeline(one)],
      ];
  }

  async push(block) {
    const samples = this.#resampler.push(block);
    for (const [cutter, run] of this.#cutters) for (const window of cutter.push(samples)) await run(window);
  }

  async finish() {
    const rest = this.#resampler.finish();
    for (const [cutter, run] of this.#cutters) for (const window of cutter.push(rest)) await run(window);
    for (const [cutter, run] of this.#cutters) for (const window of cutter.finish()) await run(window);
    const { name, labels } = this.#card;
    return { model: name, duration_s: round(this.#duration_s, 4), tags: this.#tags.tags(labels), timeline: this.#timeline() };
  }

  async #runBoth(window) {
    if (!this.#card.timeline.local) {
      const scores = await this.#model.scores(window.samples);
      this.#tags.add(this.#span(window), scores);
      this.#addWhole(window, scores);
      return;
    }
    const { scores, pieces } = await this.#model.scoresAndPieces(window.samples);
    this.#tags.add(this.#span(window), scores);
    this.#addPieces(window, pieces);
  }

  async #runTagging(window) {
    this.#tags.add(this.#span(window), await this.#model.scores(window.samples));
  }

  async #runTimeline(window) {
    if (this.#card.timeline.local) this.#addPieces(window, (await this.#model.scoresAndPieces(window.samples)).pieces);
    else this.#addWhole(window, await this.#model.scores(window.samples));
  }

  #addWhole(window, scores) {
    const { start_s, end_s } = this.#span(window);
    this.#add(start_s, end_s, scores);
  }

  #addPieces(window, pieces) {
    const { start_s, end_s } = this.#span(window);
    const { hop_s, local } = this.#card.timeline;
    pieces.forEach((scores, first) => {
      const pieceStart_s = start_s + first * hop_s;
      if (first && pieceStart_s + hop_s / 2 >= end_s) return; // behind it is padding
      this.#add(pieceStart_s, Math.min(pieceStart_s + local.piece_steps * hop_s, end_s), scores);
    });
  }

  #add(start_s, end_s, scores) {
    this.#series.add(start_s, end_s, scores);
    const { count, longest } = this.#lengths_s;
    this.#lengths_s = { count: count + 1, longest: Math.max(longest, end_s - start_s) };
  }

  #span({ start, samples }) {
    const rate = this.#card.sample_rate_hz;
    return { start_s: start / rate, end_s: Math.min((start + samples.length) / rate, this.#duration_s) };
  }

  #timeline() {
    const { labels, timeline } = this.#card;
    const steps = this.#series.finish().map((step) => step.scores);
    const kept = labels.map((_, index) => index).filter((index) => steps.some((scores) => scores[index] >= FAINTEST));
    const { count, longest } = this.#lengths_s;
    const hop_s = timeline.local && count === 1 ? longest : timeline.hop_s; // there is no second window
    return {
      start_s: 0,
      hop_s,
      resolution_s: Math.max(hop_s, longest),
      labels: kept.map((index) => labels[index]),
      thresholds: kept.map((index) => timeline.thresholds[index]),
      scores: steps.map((scores) => kept.map((index) => scores[index])),
    };
  }
}

// Pools the scores of windows: the maximum, or the mean where classes exclude each other.
class WindowPooling {
  #isMaximum;
  #pooled = null;
  #highest = [];
  #spans = [];
  #count = 0;

  constructor(isMaximum) {
    this.#isMaximum = isMaximum;
  }

  add(span, scores) {
    this.#pooled ??= new Float32Array(scores.length);
    this.#count++;
    scores.forEach((score, index) => {
      if (this.#isMaximum) this.#pooled[index] = Math.max(this.#pooled[index], score);
      else this.#pooled[index] += score;
      if (score > (this.#highest[index] ?? -1)) [this.#highest[index], this.#spans[index]] = [score, span];
    });
  }

  // All tags, the highest score first.
  tags(labels) {
    const divisor = this.#isMaximum ? 1 : this.#count;
    const scores = this.#pooled.map((score) => score / divisor);
    const order = labels.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
    return order.map((index) => {
      const { start_s, end_s } = this.#spans[index];
      return { label: labels[index], score: scores[index], start_s: round(start_s, 4), end_s: round(end_s, 4) };
    });
  }
}
