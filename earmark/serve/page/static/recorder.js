// Records the microphone to a WAV file.

import { clock } from "./format.js";
import { levelDb, openMicrophone } from "./microphone.js";
import { Problem } from "./problem.js";
import { wavFile } from "./wav.js";

const LONGEST_S = 600;

export class Recorder {
  // time and meter: elements that show how long and how loud; onFile gets the recording, onProblem what went wrong.
  constructor({ time, meter }, { onFile, onProblem }) {
    Object.assign(this, { time, meter, onFile, onProblem, microphone: null, blocks: [], count: 0 });
  }

  async start() {
    Object.assign(this, { blocks: [], count: 0 });
    this.time.textContent = clock(0);
    this.microphone = await openMicrophone((block) => this.take(block), () => this.finish());
  }

  take(block) {
    if (!this.microphone) return;
    this.blocks.push(block);
    this.count += block.length;
    const seconds = this.count / this.microphone.sampleRate;
    this.time.textContent = clock(seconds);
    this.meter.value = levelDb(block);
    if (seconds >= LONGEST_S) this.finish();
  }

  // Ends the recording and hands it on.
  finish() {
    const { microphone, blocks, count } = this;
    this.cancel();
    if (!microphone) return;
    const name = `recording-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.wav`;
    if (count) this.onFile(wavFile(blocks, microphone.sampleRate, name));
    else this.onProblem(new Problem("microphone_busy", "no samples came"));
  }

  cancel() {
    this.microphone?.stop();
    this.microphone = null;
    this.blocks = [];
  }
}
