// The Worker that runs the model, so that the page never waits for it. It answers requests in their order.
//
// Conventions: a request is {id, type, ...}, its answer {id, result} or {id, error}. Recordings and live streams are
// streams of blocks with a number each; what a live stream says comes as {stream, message}.

import { Analysis } from "./worker_analysis.js";
import { Listener } from "./worker_listener.js";
import { Model } from "./worker_model.js";

const LARGEST = 5e5; // times full scale: no recording has such samples, nor NaN
const streams = new Map();
let opening = null;
let last = Promise.resolve();

const handlers = {
  open: async () => (await opened()).card,
  analyse: async ({ stream, sampleRate, duration_s }) => {
    streams.set(stream, new Analysis(await opened(), { sampleRate, duration_s }));
  },
  listen: async ({ stream, sampleRate, top }) => {
    const send = (message) => postMessage({ stream, message });
    streams.set(stream, new Listener(await opened(), { sampleRate, top }, send));
  },
  push: async ({ stream, block }) => {
    if (!block.every((sample) => Math.abs(sample) < LARGEST)) throw new Error("the sound has samples that are not numbers");
    await streams.get(stream).push(block);
  },
  finish: async ({ stream }) => {
    const result = await streams.get(stream).finish();
    streams.delete(stream);
    return result;
  },
  close: async ({ stream }) => {
    streams.delete(stream);
  },
};

function opened() {
  opening ??= Model.open().catch((error) => {
    opening = null; // so that it can be tried again
    throw error;
  });
  return opening;
}

async function answer({ data: { id, type, ...request } }) {
  try {
    postMessage({ id, result: await handlers[type](request) });
  } catch (error) {
    postMessage({ id, error: error.message || String(error) });
  }
}

addEventListener("message", (request) => {
  last = last.then(() => answer(request));
});
