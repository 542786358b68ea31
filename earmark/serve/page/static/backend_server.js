// Answers of the server that this page comes from: the same functions as those of backend_local.js.
//
// Conventions: a token is given in the address as #token=..., which browsers do not send, and is kept in memory only.

import { Problem } from "./problem.js";

const API = new URL("v1/", document.baseURI);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname + location.search);

// The models of the server.
export async function models() {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(new URL("models", API), { headers }).catch(() => {
    throw new Problem("no_server", "");
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw problem(response.status, answer);
  if (!answer) throw new Problem("no_model", "");
  return answer.models;
}

// Uploads a File or Blob and returns {model, duration_s, events, timeline, warnings}.
//
// onProgress gets the share of the file that has been sent, from 0 to 1; at 1 the server computes.
export function analyse(file, { model, signal, onProgress = () => {} } = {}) {
  const address = new URL("events", API);
  address.searchParams.set("timeline", "true");
  if (model) address.searchParams.set("model", model);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
    const cancel = () => request.abort();
    const settle = (finish, value) => {
      signal?.removeEventListener("abort", cancel);
      finish(value);
    };
    request.open("POST", address);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 1));
    request.upload.addEventListener("load", () => onProgress(1));
    request.addEventListener("error", () => settle(reject, new Problem("no_server", "")));
    request.addEventListener("abort", () => settle(reject, new DOMException("cancelled", "AbortError")));
    request.addEventListener("load", () => {
      const { status, response } = request;
      if (status === 200 && response?.timeline) settle(resolve, { warnings: [], ...response });
      else settle(reject, problem(status, response));
    });
    if (signal?.aborted) return settle(reject, new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", cancel);
    return request.send(file);
  });
}

// Listens to a stream of mono samples; onMessage gets the messages of the server, as {type, ...}.
export function listen({ model = null, sampleRate, top = 5, onMessage }) {
  const address = new URL("listen", API);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let isOpen = false;
  let isOver = false;
  const finish = (message) => {
    if (!isOver) onMessage(message);
    isOver = true;
  };
  return new Promise((resolve, reject) => {
    socket.addEventListener("open", () => {
      isOpen = true;
      const opening = { sample_rate: Math.round(sampleRate), format: "f32le", channels: 1, model, top };
      socket.send(JSON.stringify(token ? { ...opening, token } : opening));
      resolve(stream(socket));
    });
    socket.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "end" || message.type === "error") finish(message);
      else onMessage(message);
    });
    socket.addEventListener("close", () => {
      if (isOpen) finish({ type: "error", code: "connection_lost", message: "" });
      else reject(new Problem("no_server", ""));
    });
  });
}

const MOST_WAITING = 1 << 22; // bytes; beyond it the connection is too slow, and blocks are left out

function stream(socket) {
  const isOpen = () => socket.readyState === WebSocket.OPEN;
  return {
    feed(samples) {
      if (isOpen() && socket.bufferedAmount < MOST_WAITING) socket.send(samples);
    },
    stop() {
      if (isOpen()) socket.send(JSON.stringify({ type: "stop" }));
    },
  };
}

function problem(status, answer) {
  const { code = "", message = `status ${status}` } = answer?.error ?? {};
  return new Problem(code, message, status);
}
