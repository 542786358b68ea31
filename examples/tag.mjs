// Tags a WAV file with a model file that takes waveforms, in Node with onnxruntime-web.
//
//     node tag.mjs model.onnx recording.wav
//
// In a browser, replace readFile by fetch. The model file needs nothing else: labels, sample rate, window and calibration
// are read from it. The recording must have the model's sample rate.

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

// The model info is the last entry but one of the file; the last one, of 84 bytes, is the SHA-256 of all bytes before it.
async function readInfo(file) {
  const body = file.subarray(0, file.length - 84);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (new TextDecoder().decode(file.subarray(file.length - 64)) !== hex) throw Error("the model file is damaged");
  const key = new TextEncoder().encode("\x0a\x0eearmark.record\x12");
  let at = body.length - key.length;
  while (!key.every((byte, index) => body[at + index] === byte)) at--;
  at += key.length;
  while (body[at] & 0x80) at++; // skip the length: the text goes on to the end
  return JSON.parse(new TextDecoder().decode(body.subarray(at + 1)));
}

// Reads mono samples in [-1, 1] and the sample rate of a WAV file.
function readWav(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let format, channels, rate, bits;
  for (let at = 12; at + 8 <= file.length; ) {
    const id = String.fromCharCode(...file.subarray(at, at + 4));
    const size = Math.min(view.getUint32(at + 4, true), file.length - at - 8);
    at += 8;
    if (id === "fmt ") {
      [format, channels] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
      [rate, bits] = [view.getUint32(at + 4, true), view.getUint16(at + 14, true)];
    } else if (id === "data") {
      const isFloat = format === 3 && bits === 32;
      if (!isFloat && bits !== 16) throw Error("the WAV file must have 16-bit or float samples");
      const frame = (channels * bits) / 8;
      const samples = new Float32Array(Math.floor(size / frame));
      for (let index = 0; index < samples.length; index++)
        for (let channel = 0; channel < channels; channel++) {
          const place = at + index * frame + (channel * bits) / 8;
          const value = isFloat ? view.getFloat32(place, true) : view.getInt16(place, true) / 32768;
          samples[index] += value / channels;
        }
      return { samples, rate };
    }
    at += size + (size % 2);
  }
  throw Error("the WAV file has no samples");
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

function softmax(logits) {
  const shares = logits.map((value) => Math.exp(value - Math.max(...logits)));
  const sum = shares.reduce((one, other) => one + other, 0);
  return shares.map((share) => share / sum);
}

function interpolate(value, places, levels) {
  if (value <= places[0]) return levels[0];
  for (let index = 1; index < places.length; index++)
    if (value <= places[index]) {
      const share = (value - places[index - 1]) / (places[index] - places[index - 1]);
      return levels[index - 1] + share * (levels[index] - levels[index - 1]);
    }
  return levels[levels.length - 1];
}

// Converts the logits of a window to scores, which are probabilities if the model is calibrated.
function toScores(logits, { task, calibration }) {
  const method = calibration ? calibration.method : "none";
  if (method === "platt")
    return logits.map((value, index) => sigmoid(calibration.slope[index] * value + calibration.intercept[index]));
  if (method === "isotonic")
    return logits.map((value, index) => interpolate(value, calibration.logits[index], calibration.levels[index]));
  if (method === "temperature") return softmax(logits.map((value) => value / calibration.temperature));
  return task === "multi_label" ? logits.map(sigmoid) : softmax(logits);
}

const [modelPath, wavPath] = process.argv.slice(2);
const file = new Uint8Array(await readFile(modelPath));
const info = await readInfo(file);
const { samples, rate } = readWav(new Uint8Array(await readFile(wavPath)));
if (!info.front_end.in_graph && !info.front_end.kind) throw Error("export the model with --waveform");
if (rate !== info.front_end.sample_rate) throw Error(`sample rate must be ${info.front_end.sample_rate} Hz, got ${rate}`);

const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
const length = Math.round(info.window_s * rate);
const windows = Math.max(1, Math.ceil(samples.length / length));
const repeats = info.padding === "repeat" && samples.length < length; // the end of a longer recording is padded with zeros
const scores = new Array(info.labels.length).fill(0);
for (let number = 0; number < windows; number++) {
  const window = new Float32Array(length);
  for (let index = 0; index < length; index++) {
    const place = number * length + index;
    if (place < samples.length) window[index] = samples[place];
    else if (repeats) window[index] = samples[place % samples.length];
  }
  const outputs = await session.run({ waveform: new ort.Tensor("float32", window, [1, length]) });
  toScores(Array.from(outputs.logits.data), info).forEach((score, index) => {
    if (info.task === "multi_label") scores[index] = Math.max(scores[index], score);
    else scores[index] += score / windows;
  });
}
const order = scores.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
for (const index of order.slice(0, 5)) console.log(`${scores[index].toFixed(4)} ${info.labels[index]}`);
