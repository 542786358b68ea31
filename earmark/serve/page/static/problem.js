// What went wrong, as a sentence that says what helps.

export class Problem extends Error {
  // code: for programs, as the server's (docs/serve.md); status: of HTTP, 0 where there was no answer.
  constructor(code, message, status = 0) {
    super(message);
    Object.assign(this, { code, status });
  }
}

const HELP = {
  no_server: "The server does not answer. Start it again with “earmark serve”, then try once more.",
  too_large: "The recording is larger or longer than this server accepts. Cut it, or compress it as FLAC or MP3.",
  unsupported_audio: "This file is not sound that can be read. Choose a recording such as WAV, FLAC, MP3, OGG or M4A.",
  queue_full: "The server is busy. Wait a moment, then try again.",
  unavailable: "The server is shutting down or overloaded. Wait a moment, then try again.",
  timeout: "The recording took longer than this server allows. Cut it into shorter parts.",
  unauthorized: "This server needs a token. Open the page with “#token=…” at the end of its address.",
  empty: "The file is empty. Choose another one.",
  microphone_refused: "The browser may not use the microphone. Allow it next to the address bar, then start again.",
  no_microphone: "No microphone was found. Connect one, then start again.",
  microphone_busy: "The microphone cannot be opened. Close other programs that use it, then start again.",
  insecure: "Browsers give the microphone only to pages on this computer or over HTTPS. Open the page that way.",
  connection_lost: "The connection to the server was lost. Check that it runs, then start again.",
  too_many_streams: "The server listens to as many streams as it can. Wait until one has ended, then start again.",
  too_slow: "The sound came faster than it could be analysed. Use a smaller model, or another computer.",
  no_model: "The models of this server cannot be listed. Check that it runs, then load the page again.",
};

const BY_STATUS = { 401: "unauthorized", 408: "timeout", 413: "too_large", 415: "unsupported_audio", 429: "queue_full", 503: "unavailable" };

// {title, detail}: what to do, and what the program said.
export function explain(error) {
  const known = HELP[error.code] ?? HELP[BY_STATUS[error.status]];
  if (!known) return { title: "Something went wrong. Try again, or load the page again.", detail: error.message };
  return { title: known, detail: error.message && !error.isBare ? error.message : "" };
}

export function isCancelled(error) {
  return error.name === "AbortError";
}
