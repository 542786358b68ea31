// Events as files: the same formats as `earmark tag --events` writes (earmark/events/formats.py).

import { fixed } from "./format.js";

const COLUMNS = ["path", "label", "start_s", "end_s", "peak", "mean", "resolution_s", "calibrated"];

// Format -> {suffix, type, render}; a recording is {path, duration_s, sample_rate, model, calibrated, warnings}.
export const FORMATS = {
  csv: { suffix: ".csv", type: "text/csv", render: csv },
  json: { suffix: ".json", type: "application/json", render: json },
  audacity: { suffix: ".txt", type: "text/plain", render: audacity },
};

export function csv(recording, events) {
  const rows = events.map((event) => [
    recording.path,
    event.label,
    fixed(event.start_s, 3),
    fixed(event.end_s, 3),
    fixed(event.peak, 4),
    fixed(event.mean, 4),
    fixed(event.resolution_s, 3),
    String(recording.calibrated),
  ]);
  return [COLUMNS, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

export function json(recording, events) {
  const found = {
    path: recording.path,
    duration_s: Number(fixed(recording.duration_s, 4)),
    sample_rate: recording.sample_rate,
    model: recording.model,
    calibrated: recording.calibrated,
    recorded_at: null,
    events: events.map((event) => ({
      label: event.label,
      start_s: Number(fixed(event.start_s, 3)),
      end_s: Number(fixed(event.end_s, 3)),
      peak: Number(fixed(event.peak, 4)),
      mean: Number(fixed(event.mean, 4)),
      resolution_s: Number(fixed(event.resolution_s, 3)),
    })),
    warnings: recording.warnings,
  };
  return `[${JSON.stringify(found)}]\n`;
}

export function audacity(recording, events) {
  return events
    .map((event) => `${fixed(event.start_s, 6)}\t${fixed(event.end_s, 6)}\t${oneLine(event.label)}\n`)
    .join("");
}

// Hands a file to the browser's downloads.
export function save(format, recording, events) {
  const { suffix, type, render } = FORMATS[format];
  const address = URL.createObjectURL(new Blob([render(recording, events)], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = (recording.path.replace(/\.[^.]*$/, "") || "events") + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function oneLine(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
}
