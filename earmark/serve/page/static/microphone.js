// The microphone as blocks of mono samples, without the browser's noise suppression, which removes sounds.

import { Problem } from "./problem.js";

const AS_IT_IS = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const CODES = {
  NotAllowedError: "microphone_refused",
  SecurityError: "microphone_refused",
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};

// Opens the microphone; onBlock gets Float32Arrays, onLost is called when it is unplugged. Returns {sampleRate, stop()}.
export async function openMicrophone(onBlock, onLost) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Problem("insecure", "");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: AS_IT_IS }).catch((error) => {
    throw new Problem(CODES[error.name] ?? "microphone_busy", error.message);
  });
  const context = new AudioContext();
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    return context.state === "closed" ? undefined : context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("./capture.js", import.meta.url));
    const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    capture.port.addEventListener("message", ({ data }) => onBlock(data));
    capture.port.start();
    context.createMediaStreamSource(stream).connect(capture);
    await context.resume();
  } catch (error) {
    await stop();
    throw error;
  }
  stream.getTracks().forEach((track) => track.addEventListener("ended", onLost));
  return { sampleRate: context.sampleRate, stop };
}

// The level of a block in dB relative to full scale (root mean square).
export function levelDb(block) {
  const power = block.reduce((sum, sample) => sum + sample * sample, 0) / block.length;
  return 10 * Math.log10(power + 1e-12);
}
