// A live stream in blocks -> messages like those of the server's WebSocket.
//
// Source: earmark/inference/listener.py. Conventions: positions are counted in samples and given in seconds from the
// first one.

import { OnlineDetector, round } from "./worker_detector.js";
import { Resampler } from "./worker_resampler.js";
import { ScoreAverager, WindowCutter } from "./worker_windows.js";

export class Listener {
  #model;
  #resampler;
  #cutter;
  #averager;
  #detector;
  #send;
  #top;
  #received_s = 0;
  #rate;
  #events = 0;

  // send: gets each message.
  constructor(model, { sampleRate, top = 5 }, send) {
    const { labels, live, padding, sample_rate_hz: rate } = model.card;
    this.#model = model;
    this.#send = send;
    this.#top = top;
    this.#rate = sampleRate;
    this.#resampler = new Resampler(sampleRate, rate);
    this.#cutter = new WindowCutter(live, padding);
    this.#averager = new ScoreAverager(live.hop_s);
    const thresholds = { on: Float32Array.from(live.on), off: Float32Array.from(live.off) };
    this.#detector = new OnlineDetector(labels, { ...live, ...thresholds });
  }

  async push(block) {
    this.#received_s += block.length / this.#rate;
    await this.#run(this.#cutter.push(this.#resampler.push(block)));
  }

  async finish() {
    if (this.#received_s) {
      await this.#run(this.#cutter.push(this.#resampler.finish()));
      await this.#run(this.#cutter.finish());
      for (const step of this.#averager.finish()) this.#notify(this.#detector.push(step));
      this.#notify(this.#detector.finish());
    }
    this.#send({ type: "end", events: this.#events });
  }

  async #run(windows) {
    const { sample_rate_hz: rate, labels } = this.#model.card;
    for (const { start, samples } of windows) {
      const scores = await this.#model.scores(samples);
      const start_s = start / rate;
      const end_s = Math.min((start + samples.length) / rate, this.#received_s);
      const order = labels.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
      const top = order.slice(0, this.#top).map((index) => ({ label: labels[index], score: round(scores[index], 4) }));
      this.#send({ type: "scores", time_s: round(end_s, 3), top });
      this.#averager.add(start_s, end_s, scores);
      const step = this.#averager.settledBy(start_s);
      if (step) this.#notify(this.#detector.push(step));
    }
  }

  #notify(notices) {
    for (const notice of notices) {
      this.#events += notice.type === "event_end";
      this.#send(notice);
    }
  }
}
