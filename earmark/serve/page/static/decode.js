// A file -> mono samples for the waveform and the spectrogram, at a rate that an hour fits in memory with.
//
// Conventions: WAV files are decoded part by part; others as a whole, if that is likely to fit. What the server can read
// and the browser cannot has no picture, and its events all the same.

import { readLayout, wavPart } from "./wav.js";

const PART_S = 30;
const PEAKS_PER_S = 400;
const MOST_PEAKS = 1 << 21;
const [SHORT_S, SHORT_RATE, LONG_RATE] = [600, 32000, 8000];
const BYTES_PER_SECOND = 48000 * 2 * 4; // of decoded stereo, which the browser holds at its own rate before it resamples

// {samples, sampleRate, durationS, fileRate}; null if the browser cannot decode it, or it does not fit in memory.
export async function decodeFile(file, signal) {
  const layout = await readLayout(file);
  const durationS = layout?.durationS ?? (await mediaDuration(file));
  signal?.throwIfAborted();
  if (!(durationS > 0)) return null;
  const rate = durationS <= SHORT_S ? SHORT_RATE : LONG_RATE;
  try {
    if (layout && durationS > PART_S) return await decodeParts(file, layout, rate, signal);
    if (durationS * BYTES_PER_SECOND > budget()) return null;
    const samples = mono(await decodeWhole(file, rate));
    return { samples, sampleRate: rate, durationS: samples.length / rate, fileRate: layout?.format.sampleRate ?? null };
  } catch (error) {
    if (signal?.aborted) throw error;
    return null;
  } finally {
    signal?.throwIfAborted();
  }
}

// The highest magnitude of each short stretch, for wavesurfer.
export function peaksOf(samples, durationS) {
  const count = Math.max(1, Math.min(samples.length, MOST_PEAKS, Math.ceil(durationS * PEAKS_PER_S)));
  const peaks = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const end = Math.floor(((index + 1) * samples.length) / count);
    for (let at = Math.floor((index * samples.length) / count); at < end; at++) {
      const magnitude = Math.abs(samples[at]);
      if (magnitude > peaks[index]) peaks[index] = magnitude;
    }
  }
  return peaks;
}

async function decodeParts(file, layout, rate, signal) {
  const samples = new Float32Array(Math.ceil(layout.durationS * rate));
  const framesPerPart = PART_S * layout.format.sampleRate;
  for (let first = 0; first < layout.frames; first += framesPerPart) {
    signal?.throwIfAborted();
    const part = mono(await decodeWhole(wavPart(file, layout, first, framesPerPart), rate));
    const at = Math.round((first / layout.format.sampleRate) * rate);
    samples.set(part.subarray(0, samples.length - at), at);
  }
  return { samples, sampleRate: rate, durationS: layout.durationS, fileRate: layout.format.sampleRate };
}

async function decodeWhole(blob, sampleRate) {
  const context = new OfflineAudioContext({ numberOfChannels: 1, length: 1, sampleRate });
  return context.decodeAudioData(await blob.arrayBuffer());
}

function mono(audio) {
  const samples = audio.getChannelData(0);
  if (audio.numberOfChannels === 1) return samples;
  for (let channel = 1; channel < audio.numberOfChannels; channel++) {
    const other = audio.getChannelData(channel);
    for (let at = 0; at < samples.length; at++) samples[at] += other[at];
  }
  for (let at = 0; at < samples.length; at++) samples[at] /= audio.numberOfChannels;
  return samples;
}

// The duration that the browser's player finds; 0 if it cannot play the file.
function mediaDuration(file) {
  const address = URL.createObjectURL(file);
  const media = document.createElement("audio");
  return new Promise((resolve) => {
    const done = (seconds) => {
      URL.revokeObjectURL(address);
      media.removeAttribute("src");
      resolve(Number.isFinite(seconds) ? seconds : SHORT_S);
    };
    media.addEventListener("loadedmetadata", () => done(media.duration), { once: true });
    media.addEventListener("error", () => done(0), { once: true });
    setTimeout(() => done(media.duration || 0), 10_000);
    media.preload = "metadata";
    media.src = address;
  });
}

function budget() {
  return (navigator.deviceMemory ?? 8) >= 8 ? 1.6e9 : 0.5e9;
}
