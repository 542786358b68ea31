// Answers of a model that runs in this browser, in a Worker: the same functions as those of backend_server.js.
//
// Conventions: the browser decodes a recording; the Worker gets it block by block and converts its sample rate, so that
// besides the decoded recording memory stays small. Nothing is sent anywhere.

import { Problem } from "./static/problem.js";
import { isDecodable, statedRate } from "./sample_rate.js";
import { readLayout, wavPart } from "./static/wav.js";

const PART_S = 30; // of a WAV file that are decoded at once
const BLOCK_S = 5;
const LONGEST_BACKLOG_S = 30; // of live sound that waits for the Worker
const SEGMENT = 1 << 14; // samples whose channels are mixed in one way
const CANCELLED = 0.01; // power of the mean over that of the loudest channel, below which channels cancel

let worker = null;
let requests = 0;
let streams = 0;
const waiting = new Map(); // request -> {resolve, reject}
const listeners = new Map(); // stream -> onMessage

// The models of this page: one.
export async function models() {
  const card = await call("open");
  return [card];
}

// Tags a File or Blob. Returns {model, duration_s, tags, timeline, warnings}; onProgress gets the share that is done.
export async function analyse(file, { signal, onProgress = () => {} } = {}) {
  const card = await call("open");
  const recording = await open(file, card.sample_rate_hz);
  const { sampleRate, durationS } = recording;
  const stream = ++streams;
  await call("analyse", { stream, sampleRate, duration_s: durationS });
  let peak = 0;
  let done = 0;
  try {
    for await (const part of recording.parts())
      for (const block of blocks(part)) {
        signal?.throwIfAborted();
        peak = Math.max(peak, highest(block));
        done += block.length;
        await call("push", { stream, block }, [block.buffer]);
        onProgress(Math.min(1, done / (durationS * sampleRate)));
      }
    signal?.throwIfAborted();
    const answer = await call("finish", { stream });
    return { ...answer, warnings: peak ? [] : ["digital silence: every sample is 0"] };
  } finally {
    call("close", { stream });
  }
}

// Listens to a stream of mono samples; onMessage gets the messages of the server's WebSocket.
export async function listen({ sampleRate, top = 5, onMessage }) {
  const { name } = await call("open");
  const rate = Math.round(sampleRate);
  const stream = ++streams;
  listeners.set(stream, onMessage);
  await call("listen", { stream, sampleRate: rate, top });
  onMessage({ type: "ready", model: name });
  let backlog = 0;
  let held = [];
  let count = 0;
  let isOpen = true;

  const close = () => {
    isOpen = false;
    listeners.delete(stream);
    return call("close", { stream });
  };
  const fail = (code, message) => {
    if (!isOpen) return;
    close();
    onMessage({ type: "error", code, message });
  };
  const send = async () => {
    const block = joined(held, count);
    [held, count] = [[], 0];
    backlog += block.length;
    try {
      await call("push", { stream, block }, [block.buffer]);
    } catch (error) {
      fail("failed", error.message);
    }
    backlog -= block.length;
  };
  return {
    feed(samples) {
      if (!isOpen) return;
      if (backlog > LONGEST_BACKLOG_S * rate)
        fail("too_slow", "this device is too slow to listen with this model: use a smaller one");
      held.push(Float32Array.from(samples)); // a copy: the buffer may be used again
      count += samples.length;
      if (count >= rate / 10) send();
    },
    async stop() {
      if (!isOpen) return;
      if (count) await send();
      if (isOpen) await call("finish", { stream }).catch((error) => fail("failed", error.message));
      await close();
    },
  };
}

// {sampleRate, durationS, parts()}: the decoded parts of a recording, as AudioBuffers at the rate of the file, or if that
// is not known, of the model. A WAV file has many parts, others are decoded as a whole.
async function open(file, modelRate) {
  if (!file.size) throw new Problem("empty", "the file has no content");
  const layout = await readLayout(file);
  if (layout?.frames && isDecodable(layout.format.sampleRate)) {
    const { frames, durationS, format } = layout;
    const size = Math.max(1, Math.floor((PART_S * format.sampleRate) / SEGMENT)) * SEGMENT;
    return {
      sampleRate: format.sampleRate,
      durationS,
      async *parts() {
        for (let first = 0; first < frames; first += size)
          yield decode(await wavPart(file, layout, first, size).arrayBuffer(), format.sampleRate);
      },
    };
  }
  const content = await file.arrayBuffer().catch(() => {
    throw new Problem("unreadable", "the file cannot be read, or does not fit in memory");
  });
  const audio = await decode(content, statedRate(content) ?? modelRate);
  return { sampleRate: audio.sampleRate, durationS: audio.duration, parts: () => [audio] };
}

async function decode(content, sampleRate) {
  const context = new OfflineAudioContext({ numberOfChannels: 1, length: 1, sampleRate });
  try {
    return await context.decodeAudioData(content);
  } catch {
    throw new Problem("unsupported_audio", "this browser cannot decode the file, or it is too long to fit in memory");
  }
}

// The samples of an AudioBuffer in blocks, mixed to mono.
function* blocks(audio) {
  const size = Math.max(1, Math.floor((BLOCK_S * audio.sampleRate) / SEGMENT)) * SEGMENT;
  for (let first = 0; first < audio.length; first += size) yield mix(audio, first, Math.min(size, audio.length - first));
}

// Mixes channels to one: their mean, or the loudest where they cancel each other (earmark/audio/mixing.py).
function mix(audio, first, length) {
  const channels = Array.from({ length: audio.numberOfChannels }, (_, channel) => {
    const samples = new Float32Array(length);
    audio.copyFromChannel(samples, channel, first);
    return samples;
  });
  if (channels.length === 1) return channels[0];
  const mixed = new Float32Array(length);
  for (let start = 0; start < length; start += SEGMENT) {
    const parts = channels.map((samples) => samples.subarray(start, start + SEGMENT));
    const mean = parts[0].map((_, index) => parts.reduce((sum, part) => sum + part[index], 0) / parts.length);
    const powers = parts.map(power);
    const largest = Math.max(...powers);
    mixed.set(power(mean) >= CANCELLED * largest ? mean : parts[powers.indexOf(largest)], start);
  }
  return mixed;
}

const power = (samples) => samples.reduce((sum, sample) => sum + sample * sample, 0);
const highest = (samples) => samples.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);

function joined(blocks, length) {
  const all = new Float32Array(length);
  let at = 0;
  for (const block of blocks) {
    all.set(block, at);
    at += block.length;
  }
  return all;
}

function call(type, request = {}, transfer = []) {
  worker ??= start();
  const id = ++requests;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, type, ...request }, transfer);
  });
}

function start() {
  const started = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  started.addEventListener("message", ({ data: { id, result, error, stream, message } }) => {
    if (message) return listeners.get(stream)?.(message);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    return error === undefined ? resolve(result) : reject(new Problem("failed", error));
  });
  started.addEventListener("error", (event) => {
    event.preventDefault();
    worker = null; // the next request starts another
    const reason = event.message || "a file of the page is missing: copy the whole folder";
    for (const { reject } of waiting.values()) reject(new Problem("failed", `the model cannot run: ${reason}`));
    waiting.clear();
  });
  return started;
}
