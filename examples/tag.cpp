// Tags a WAV file with a model file that takes waveforms, with ONNX Runtime's C++ interface and nlohmann/json.
//
//     g++ -std=c++17 -O2 -I include tag.cpp -o tag -L lib -lonnxruntime
//     ./tag model.onnx recording.wav
//
// The model file needs nothing else: labels, sample rate, window and calibration are read from it. The recording must have
// the model's sample rate.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>

using nlohmann::json;
using Scores = std::vector<double>;

struct Recording {
  std::vector<float> samples;  // mono, in [-1, 1]
  uint32_t rate = 0;
};

template <typename Number>
Number number_at(const std::string& bytes, size_t place) {
  Number value;
  if (place + sizeof value > bytes.size()) throw std::runtime_error("the WAV file is cut off");
  std::memcpy(&value, bytes.data() + place, sizeof value);
  return value;
}

Recording read_wav(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
  uint16_t format = 0, channels = 0, bits = 0;
  Recording recording;
  for (size_t at = 12; at + 8 <= bytes.size();) {
    const std::string id = bytes.substr(at, 4);
    const size_t size = std::min<size_t>(number_at<uint32_t>(bytes, at + 4), bytes.size() - at - 8);
    at += 8;
    if (id == "fmt ") {
      format = number_at<uint16_t>(bytes, at);
      channels = number_at<uint16_t>(bytes, at + 2);
      recording.rate = number_at<uint32_t>(bytes, at + 4);
      bits = number_at<uint16_t>(bytes, at + 14);
    } else if (id == "data") {
      const bool is_float = format == 3 && bits == 32;
      if (channels == 0 || (!is_float && bits != 16)) throw std::runtime_error("the WAV file must have 16-bit or float samples");
      recording.samples.assign(size / (channels * bits / 8), 0.0f);
      for (size_t index = 0; index < recording.samples.size(); ++index)
        for (size_t channel = 0; channel < channels; ++channel) {
          const size_t place = at + (index * channels + channel) * bits / 8;
          const float value =
              is_float ? number_at<float>(bytes, place) : number_at<int16_t>(bytes, place) / 32768.0f;
          recording.samples[index] += value / channels;
        }
      if (!recording.samples.empty()) return recording;
    }
    at += size + size % 2;
  }
  throw std::runtime_error(path + ": not a WAV file with samples");
}

double sigmoid(double value) { return 1 / (1 + std::exp(-value)); }

Scores softmax(Scores values) {
  const double largest = *std::max_element(values.begin(), values.end());
  for (double& value : values) value = std::exp(value - largest);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& value : values) value /= sum;
  return values;
}

double interpolate(double value, const Scores& places, const Scores& levels) {
  if (value <= places.front()) return levels.front();
  for (size_t index = 1; index < places.size(); ++index)
    if (value <= places[index]) {
      const double share = (value - places[index - 1]) / (places[index] - places[index - 1]);
      return levels[index - 1] + share * (levels[index] - levels[index - 1]);
    }
  return levels.back();
}

// Converts the logits of a window to scores, which are probabilities if the model is calibrated.
Scores to_scores(Scores logits, const json& info) {
  const json calibration = info.value("calibration", json());
  const std::string method = calibration.is_null() ? "none" : calibration["method"].get<std::string>();
  if (method == "temperature") {
    for (double& value : logits) value /= calibration["temperature"].get<double>();
    return softmax(logits);
  }
  if (method == "none" && info["task"] == "single_label") return softmax(logits);
  for (size_t index = 0; index < logits.size(); ++index) {
    if (method == "isotonic") {
      logits[index] = interpolate(logits[index], calibration["logits"][index], calibration["levels"][index]);
      continue;
    }
    const bool platt = method == "platt";
    const double slope = platt ? calibration["slope"][index].get<double>() : 1;
    const double intercept = platt ? calibration["intercept"][index].get<double>() : 0;
    logits[index] = sigmoid(slope * logits[index] + intercept);
  }
  return logits;
}

int run(const std::string& model_path, const std::string& wav_path) {
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "tag");
  Ort::Session session(environment, model_path.c_str(), Ort::SessionOptions{});
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("earmark.record", allocator);
  if (!text) throw std::runtime_error("not a model file of earmark");
  const json info = json::parse(text.get());
  const json& front_end = info["front_end"];
  if (!front_end.contains("in_graph") && !front_end.contains("kind"))
    throw std::runtime_error("export the model with --waveform");

  const Recording recording = read_wav(wav_path);
  const auto& samples = recording.samples;
  if (recording.rate != front_end["sample_rate"].get<uint32_t>())
    throw std::runtime_error("sample rate must be " + front_end["sample_rate"].dump() + " Hz, got " +
                             std::to_string(recording.rate));
  const size_t length = std::lround(info["window_s"].get<double>() * recording.rate);
  const size_t windows = std::max<size_t>(1, (samples.size() + length - 1) / length);
  // The end of a recording longer than a window is padded with zeros.
  const bool repeats = info["padding"] == "repeat" && samples.size() < length;
  const bool multi_label = info["task"] == "multi_label";
  const size_t classes = info["labels"].size();
  const std::array<int64_t, 2> shape{1, static_cast<int64_t>(length)};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"waveform"};
  const char* outputs[] = {"logits"};

  Scores scores(classes, 0.0);
  for (size_t number = 0; number < windows; ++number) {
    std::vector<float> window(length, 0.0f);
    for (size_t index = 0; index < length; ++index) {
      const size_t place = number * length + index;
      if (place < samples.size()) window[index] = samples[place];
      else if (repeats) window[index] = samples[place % samples.size()];
    }
    auto input = Ort::Value::CreateTensor<float>(memory, window.data(), length, shape.data(), shape.size());
    auto results = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);
    const float* logits = results[0].GetTensorData<float>();
    const Scores window_scores = to_scores(Scores(logits, logits + classes), info);
    for (size_t index = 0; index < classes; ++index)
      scores[index] = multi_label ? std::max(scores[index], window_scores[index])
                                  : scores[index] + window_scores[index] / static_cast<double>(windows);
  }
  std::vector<size_t> order(classes);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t one, size_t other) { return scores[one] > scores[other]; });
  for (size_t rank = 0; rank < std::min<size_t>(5, classes); ++rank)
    std::printf("%.4f %s\n", scores[order[rank]], info["labels"][order[rank]].get<std::string>().c_str());
  return 0;
}

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "tag MODEL.onnx RECORDING.wav\n");
    return 2;
  }
  try {
    return run(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tag: %s\n", error.what());
    return 2;
  }
}
