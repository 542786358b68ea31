// Answers of a model that runs in this browser, in a Worker: the same functions as those of backend_server.js.
//
// Conventions: the browser decodes a recording, at the model's sample rate; the Worker gets it block by block, so that
// besides the decoded recording memory stays small. Nothing is sent anywhere.

const BLOCK_S = 5;
const LONGEST_BACKLOG_S = 10; // of live sound that waits for the Worker
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

// Tags a File or Blob. Returns {model, duration_s, tags, timeline, warnings}.
export async function analyse(file, { signal, onProgress = () => {} } = {}) {
  const card = await call("open");
  const audio = await decode(file, card.sample_rate_hz);
  signal?.throwIfAborted();
  const stream = ++streams;
  await call("analyse", { stream, duration_s: audio.duration });
  try {
    let peak = 0;
    const size = Math.max(1, Math.floor((BLOCK_S * audio.sampleRate) / SEGMENT)) * SEGMENT;
    for (let start = 0; start < audio.length; start += size) {
      signal?.throwIfAborted();
      const block = mix(audio, start, Math.min(size, audio.length - start));
      peak = Math.max(peak, highest(block));
      await call("push", { stream, block }, [block.buffer]);
      onProgress(Math.min(1, (start + size) / audio.length));
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
  const stream = ++streams;
  listeners.set(stream, onMessage);
  await call("listen", { stream, sampleRate, top });
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
      if (backlog > LONGEST_BACKLOG_S * sampleRate)
        fail("too_slow", "this device is too slow to listen with this model: use a smaller one");
      held.push(Float32Array.from(samples)); // a copy: the buffer may be used again
      count += samples.length;
      if (count >= sampleRate / 10) send();
    },
    async stop() {
      if (!isOpen) return;
      if (count) await send();
      if (isOpen) await call("finish", { stream }).catch((error) => fail("failed", error.message));
      await close();
    },
  };
}

async function decode(file, sampleRate) {
  const name = file.name || "the recording";
  if (!file.size) throw problem("empty", `${name} is empty`);
  const context = new OfflineAudioContext({ numberOfChannels: 1, length: 1, sampleRate });
  const content = await file.arrayBuffer().catch(() => {
    throw problem("unreadable_audio", `${name} cannot be read, or does not fit in memory`);
  });
  try {
    return await context.decodeAudioData(content);
  } catch {
    throw problem("unsupported_audio", `${name}: this browser cannot decode it: convert it to WAV, MP3 or FLAC`);
  }
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
    return error === undefined ? resolve(result) : reject(problem("failed", error));
  });
  started.addEventListener("error", (event) => {
    event.preventDefault();
    worker = null; // the next request starts another
    const reason = event.message || "a file of the page is missing: copy the whole folder";
    for (const { reject } of waiting.values()) reject(problem("failed", `the model cannot run: ${reason}`));
    waiting.clear();
  });
  return started;
}

function problem(code, message) {
  return Object.assign(new Error(message), { code });
}
