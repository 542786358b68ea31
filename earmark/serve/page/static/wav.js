// WAV files: recordings of the microphone as files, and large ones in parts that fit in memory.

const HEADER = 44;

// Mono samples in [-1, 1], in blocks, as a file of 16-bit WAV.
export function wavFile(blocks, sampleRate, name) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const parts = blocks.map((block) =>
    Int16Array.from(block, (sample) => Math.round(Math.min(1, Math.max(-1, sample)) * 32767)),
  );
  const format = { tag: 1, channels: 1, sampleRate, bits: 16 };
  return new File([header(format, 2 * count), ...parts], name, { type: "audio/wav" });
}

// Where the samples of a WAV file are: {format, start, size, frameBytes, durationS}; null if it is no plain WAV file.
export async function readLayout(file) {
  const head = new DataView(await file.slice(0, 1 << 16).arrayBuffer());
  if (head.byteLength < HEADER || text(head, 0) !== "RIFF" || text(head, 8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= head.byteLength; ) {
    const size = head.getUint32(at + 4, true);
    if (text(head, at) === "fmt " && at + 24 <= head.byteLength) format = readFormat(head, at + 8);
    if (text(head, at) === "data") return format && layout(format, at + 8, Math.min(size, file.size - at - 8));
    at += 8 + size + (size % 2);
  }
  return null;
}

// A part of a WAV file as a WAV file of its own.
export function wavPart(file, { format, start, size, frameBytes }, firstFrame, frames) {
  const from = firstFrame * frameBytes;
  const length = Math.min(frames * frameBytes, size - from);
  return new Blob([header(format, length), file.slice(start + from, start + from + length)]);
}

function readFormat(head, at) {
  let tag = head.getUint16(at, true);
  if (tag === 0xfffe && at + 26 <= head.byteLength) tag = head.getUint16(at + 24, true); // its real one, if extensible
  const [channels, sampleRate, bits] = [head.getUint16(at + 2, true), head.getUint32(at + 4, true), head.getUint16(at + 14, true)];
  const isPlain = (tag === 1 || tag === 3) && channels > 0 && sampleRate > 0 && bits > 0 && bits % 8 === 0;
  return isPlain ? { tag, channels, sampleRate, bits } : null;
}

function layout(format, start, size) {
  const frameBytes = (format.channels * format.bits) / 8;
  const frames = Math.floor(size / frameBytes);
  return { format, start, size: frames * frameBytes, frameBytes, frames, durationS: frames / format.sampleRate };
}

function header({ tag, channels, sampleRate, bits }, size) {
  const view = new DataView(new ArrayBuffer(HEADER));
  const frameBytes = (channels * bits) / 8;
  [..."RIFF"].forEach((letter, at) => view.setUint8(at, letter.charCodeAt(0)));
  view.setUint32(4, HEADER - 8 + size, true);
  [..."WAVEfmt "].forEach((letter, at) => view.setUint8(8 + at, letter.charCodeAt(0)));
  view.setUint32(16, 16, true);
  view.setUint16(20, tag, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * frameBytes, true);
  view.setUint16(32, frameBytes, true);
  view.setUint16(34, bits, true);
  [..."data"].forEach((letter, at) => view.setUint8(36 + at, letter.charCodeAt(0)));
  view.setUint32(40, size, true);
  return view.buffer;
}

function text(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((offset) => view.getUint8(at + offset)));
}
