// Scores over time -> events: the hysteresis of earmark/events/detect.py, for the threshold slider.
//
// Conventions: times are seconds, scores lie in [0, 1]. A series has one column of scores per label; step k starts at
// edges[k] and ends at edges[k + 1]. Scores and thresholds are compared in 32 bits, as in Python.

export const OFF_BELOW_ON = 0.15;
export const DEFAULTS = { threshold: "auto", offThreshold: null, minDurationS: 0.25, mergeGapS: 0.1, labels: {} };
const ROUNDING_S = 1e-6;

// The series of an answer {duration_s, timeline}.
export function readSeries({ duration_s, timeline }) {
  const { labels, thresholds, scores, start_s, hop_s, resolution_s } = timeline;
  const edges = Float64Array.from({ length: scores.length + 1 }, (_, step) => start_s + step * hop_s);
  if (scores.length && duration_s > edges[scores.length - 1]) edges[scores.length] = duration_s;
  const columns = labels.map((_, index) => Float32Array.from(scores, (row) => row[index]));
  return { labels, thresholds, columns, edges, resolutionS: resolution_s };
}

// The events of a series, in order of start, then of end and of the labels.
//
// options: see DEFAULTS; a threshold of "auto" is the model's own of each label. options.labels has settings of single
// labels: {Dog: {threshold, offThreshold, minDurationS, mergeGapS}}.
export function detect(series, options = {}) {
  const events = series.labels.flatMap((label, index) => detectLabel(series, index, limits(series, index, options)));
  return events.sort((one, other) => one.start_s - other.start_s || one.end_s - other.end_s);
}

// The limits of a label: {on, off, minDurationS, mergeGapS}.
export function limits(series, index, options = {}) {
  const general = { ...DEFAULTS, ...options };
  const own = general.labels[series.labels[index]] ?? {};
  const common = general.threshold === "auto" ? series.thresholds[index] : general.threshold;
  const on = own.threshold ?? common;
  const off = own.offThreshold ?? general.offThreshold ?? Math.max(on - OFF_BELOW_ON, on / 2);
  return {
    on,
    off: Math.min(on, off),
    minDurationS: own.minDurationS ?? general.minDurationS,
    mergeGapS: own.mergeGapS ?? general.mergeGapS,
  };
}

// The highest score of each label and when it was: {label, score, start_s, end_s}, highest first.
export function highest(series) {
  const found = series.labels.map((label, index) => {
    const column = series.columns[index];
    let best = 0;
    for (let step = 1; step < column.length; step++) if (column[step] > column[best]) best = step;
    return { label, score: column[best] ?? 0, start_s: series.edges[best], end_s: series.edges[best + 1] };
  });
  return found.sort((one, other) => other.score - one.score);
}

function detectLabel({ labels, columns, edges, resolutionS }, index, { on, off, minDurationS, mergeGapS }) {
  const scores = columns[index];
  const events = [];
  for (const [first, last] of merged(runs(scores, Math.fround(on), Math.fround(off)), edges, mergeGapS)) {
    if (edges[last] - edges[first] < minDurationS - ROUNDING_S) continue;
    let peak = 0;
    let sum = 0;
    for (let step = first; step < last; step++) {
      peak = Math.max(peak, scores[step]);
      sum += scores[step];
    }
    const times = { start_s: edges[first], end_s: edges[last] };
    events.push({ label: labels[index], ...times, peak, mean: sum / (last - first), resolution_s: resolutionS });
  }
  return events;
}

// Runs [first step, step after the last] of scores of at least `off` in which one is at least `on`.
function runs(scores, on, off) {
  const found = [];
  let first = -1;
  let reached = false;
  for (let step = 0; step <= scores.length; step++) {
    if (step < scores.length && scores[step] >= off) {
      if (first < 0) [first, reached] = [step, false];
      reached ||= scores[step] >= on;
    } else if (first >= 0) {
      if (reached) found.push([first, step]);
      first = -1;
    }
  }
  return found;
}

function merged(found, edges, gapS) {
  const together = [];
  for (const [first, last] of found) {
    const before = together.at(-1);
    if (before && edges[first] - edges[before[1]] <= gapS + ROUNDING_S) before[1] = last;
    else together.push([first, last]);
  }
  return together;
}
