// A model in the browser: ONNX Runtime Web with one thread, the model file, and what model.json says of it.
//
// Conventions: waveforms are mono Float32Array at the model's rate. Everything is fetched from the folder of this page.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { toScores } from "./worker_scores.js";

const RUNTIME = new URL("./onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url);
const FOLDER = new URL("./model/", import.meta.url);

export class Model {
  #session;
  #head;

  constructor(card, session, head) {
    this.card = card;
    this.#session = session;
    this.#head = head;
  }

  static async open() {
    ort.env.wasm.numThreads = 1; // more need a server that isolates the page
    ort.env.wasm.proxy = false;
    ort.env.logLevel = "error";
    const [card, runtime] = await Promise.all([fetchFile(new URL("model.json", FOLDER), "json"), fetchFile(RUNTIME)]);
    ort.env.wasm.wasmBinary = runtime;
    const local = card.timeline.local;
    const files = local ? [card.file, local.file] : [card.file];
    const sessions = [];
    for (const name of files) {
      const content = new Uint8Array(await fetchFile(new URL(name, FOLDER)));
      sessions.push(await ort.InferenceSession.create(content, { executionProviders: ["wasm"] }));
    }
    return new Model(card, ...sessions);
  }

  // The scores of a window, a Float32Array (class,).
  async scores(waveform) {
    const { logits } = await this.#session.run(feeds(waveform), ["logits"]);
    return this.#toScores(logits.data);
  }

  // The scores of a window, and those of its pieces, which begin a step after each other.
  async scoresAndPieces(waveform) {
    const { feature_map: name, time_axis: axis, steps, piece_steps: length } = this.card.timeline.local;
    const outputs = await this.#session.run(feeds(waveform), ["logits", name]);
    const features = outputs[name];
    if (features.dims[axis] !== steps) throw new Error(`the model returned ${features.dims[axis]} steps, expected ${steps}`);
    const batch = slidingPieces(features, axis, length);
    const { logits } = await this.#head.run({ [name]: new ort.Tensor("float32", batch.data, batch.dims) }, ["logits"]);
    const classes = logits.dims[1];
    const pieces = Array.from({ length: batch.dims[0] }, (_, piece) =>
      this.#toScores(logits.data.subarray(piece * classes, (piece + 1) * classes)),
    );
    return { scores: this.#toScores(outputs.logits.data), pieces };
  }

  #toScores(logits) {
    if (logits.some(Number.isNaN)) throw new Error(`model ${this.card.name} returned numbers that are none (NaN)`);
    return toScores(logits, this.card);
  }
}

function feeds(waveform) {
  return { waveform: new ort.Tensor("float32", waveform, [1, waveform.length]) };
}

// The pieces of so many steps of a feature map of one window, as a batch.
function slidingPieces({ data, dims }, axis, length) {
  const steps = dims[axis];
  const inner = dims.slice(axis + 1).reduce((one, other) => one * other, 1);
  const rows = data.length / (steps * inner);
  const pieces = new Float32Array((steps - length + 1) * rows * length * inner);
  let at = 0;
  for (let first = 0; first + length <= steps; first++)
    for (let row = 0; row < rows; row++, at += length * inner) {
      const start = (row * steps + first) * inner;
      pieces.set(data.subarray(start, start + length * inner), at);
    }
  const shape = dims.map((size, index) => (index === axis ? length : size));
  return { data: pieces, dims: [steps - length + 1, ...shape.slice(1)] };
}

async function fetchFile(url, kind = "arrayBuffer") {
  const name = url.pathname.split("/").pop();
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error(`${name} cannot be fetched: is the server that holds this page still running?`);
  }
  if (!response.ok) throw new Error(`${name} cannot be fetched (${response.status}): copy the whole folder of the page`);
  return response[kind]();
}
