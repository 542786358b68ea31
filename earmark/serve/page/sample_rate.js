// Finds the sample rate that an audio file states, because browsers decode to the rate they are asked for: FLAC, Ogg
// (Vorbis, Opus), MP3; wav.js has that of WAV files.

// Returns the rate in Hz, or null for other formats. content: an ArrayBuffer.
export function statedRate(content) {
  const bytes = new DataView(content);
  const find = FORMATS.find(([mark]) => hasText(bytes, 0, mark))?.[1] ?? mp3Rate;
  try {
    const rate = find(bytes);
    return isDecodable(rate) ? rate : null;
  } catch {
    return null; // a file that is cut off
  }
}

// Whether browsers can decode to a rate.
export function isDecodable(rate) {
  return rate >= 8000 && rate <= 96000;
}

const FORMATS = [
  ["fLaC", (bytes) => bytes.getUint32(18) >>> 12],
  ["OggS", oggRate],
];

function oggRate(bytes) {
  const packet = 27 + bytes.getUint8(26); // behind the header of the first page
  if (hasText(bytes, packet, "OpusHead")) return 48000;
  return hasText(bytes, packet, "\x01vorbis") ? bytes.getUint32(packet + 12, true) : null;
}

function mp3Rate(bytes) {
  let at = 0;
  if (hasText(bytes, 0, "ID3")) {
    const size = [6, 7, 8, 9].reduce((sum, place) => sum * 128 + bytes.getUint8(place), 0);
    at = 10 + size;
  }
  const header = bytes.getUint32(at);
  const [version, layer, index] = [(header >>> 19) & 3, (header >>> 17) & 3, (header >>> 10) & 3];
  if (header >>> 21 !== 0x7ff || version === 1 || layer === 0 || index === 3) return null;
  return [44100, 48000, 32000][index] / { 3: 1, 2: 2, 0: 4 }[version];
}

function hasText(bytes, at, text) {
  return at + text.length <= bytes.byteLength && [...text].every((one, index) => bytes.getUint8(at + index) === one.charCodeAt(0));
}
