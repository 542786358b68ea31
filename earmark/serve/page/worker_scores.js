// Converts logits to scores, which are probabilities if the model is calibrated.
//
// Source: earmark/model_file/calibration.py. Conventions: computed in 64 bits, returned as a Float32Array.

const sigmoid = (value) => 0.5 * (1 + Math.tanh(0.5 * value));

function softmax(logits) {
  const largest = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const shares = logits.map((value) => Math.exp(value - largest));
  const sum = shares.reduce((one, other) => one + other, 0);
  return shares.map((share) => share / sum);
}

function interpolate(value, places, levels) {
  if (value <= places[0]) return levels[0];
  const index = places.findIndex((place) => value <= place);
  if (index < 0) return levels[levels.length - 1];
  const share = (value - places[index - 1]) / (places[index] - places[index - 1]);
  return levels[index - 1] + share * (levels[index] - levels[index - 1]);
}

const METHODS = {
  multi_label: (logits) => logits.map(sigmoid),
  single_label: softmax,
  platt: (logits, { slope, intercept }) => logits.map((value, index) => sigmoid(slope[index] * value + intercept[index])),
  isotonic: (logits, { logits: places, levels }) =>
    logits.map((value, index) => interpolate(value, places[index], levels[index])),
  temperature: (logits, { temperature }) => softmax(logits.map((value) => value / temperature)),
};

// The scores of the logits of a window; task and calibration are those of the model.
export function toScores(logits, { task, calibration }) {
  const convert = METHODS[calibration ? calibration.method : task];
  return Float32Array.from(convert(Float64Array.from(logits), calibration));
}
