"""The reference: PyTorch eager, fp32, batch 1, and a torch.stft front-end computed anew for each window.

    python -m benchmarks.reference MODEL CLIP [WINDOW_S HOP_S]

tags a recording from a cold start. MODEL stands for two files: MODEL.json, the model info, and MODEL.pt, the
state dict.

Source: EfficientAT's inference.py and windowed_inference.py (Schmid et al., arXiv:2211.04772), restated with
earmark's own network. It is faster than those: the mel bank is built once and not for each call, clips are
read by soundfile and soxr and not by librosa, and the network is not printed.

Conventions: as in earmark. Only front-ends like EfficientAT's are covered: ln, energies plus a floor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earmark.features.front_end import FrontEnd
from earmark.features.mel import analysis_window, mel_filter_bank
from earmark.model_file.info import ModelInfo
from earmark.models import create_model

Floats = NDArray[np.float32]


class StftLogMel(nn.Module):
    """Log-mel spectrogram by torch.stft.

    Args:
        front_end: A front-end like EfficientAT's.
    """

    window: Tensor
    bank: Tensor
    emphasis: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        self.register_buffer("window", torch.from_numpy(analysis_window(front_end)).float())
        self.register_buffer("bank", torch.from_numpy(mel_filter_bank(front_end)).float())
        self.register_buffer("emphasis", torch.tensor([[[-front_end.preemphasis, 1.0]]]))

    def forward(self, waveform: Tensor) -> Tensor:
        """(batch, time) -> (batch, mel, frame)."""
        front_end = self.front_end
        signal = nn.functional.conv1d(waveform.unsqueeze(1), self.emphasis).squeeze(1)
        spectrum = torch.stft(
            signal,
            front_end.n_fft,
            front_end.hop_length,
            front_end.win_length,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (torch.matmul(self.bank, power).add(front_end.floor).log() + front_end.shift) / front_end.scale


class Reference:
    """A model, run as the reference programs do.

    Args:
        model: Path of the model info and the state dict, without suffix.
        threads: Threads of PyTorch; None: its default.
    """

    def __init__(self, model: str, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.info = ModelInfo.from_json(Path(f"{model}.json").read_bytes())
        self.log_mel = StftLogMel(self.info.front_end)
        num_classes = len(self.info.labels)
        self.network = create_model(self.info.architecture, num_classes=num_classes, **self.info.arguments)
        self.network.load_state_dict(torch.load(f"{model}.pt", weights_only=True))
        self.network.eval()

    @torch.no_grad()
    def clip(self, waveform: Floats) -> Floats:
        """Scores (class,) of one waveform (time,)."""
        log_mel = self.log_mel(torch.from_numpy(waveform)[None])
        return torch.sigmoid(self.network(log_mel).logits)[0].numpy()

    def windows(self, waveform: Floats, window_s: float, hop_s: float) -> Floats:
        """Scores (window, class); the last window ends with the recording."""
        rate = self.info.front_end.sample_rate
        length, hop = round(window_s * rate), round(hop_s * rate)
        padded = np.pad(waveform, (0, max(0, length - len(waveform))))
        starts = [*range(0, len(padded) - length, hop), len(padded) - length]
        return np.stack([self.clip(padded[start : start + length]) for start in starts])

    def read(self, path: str) -> Floats:
        """Reads a whole recording, mono, at the model's sample rate: float32 (time,)."""
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return np.asarray(soxr.resample(samples.mean(1), rate, self.info.front_end.sample_rate))


def main(model: str, path: str, *lengths: str) -> None:
    """Tags one recording and prints the ten best labels."""
    reference = Reference(model)
    window_s, hop_s = map(float, lengths or (reference.info.window_s, reference.info.window_s))
    scores = reference.windows(reference.read(path), window_s, hop_s).max(0)
    for index in np.argsort(-scores)[:10]:
        print(f"{reference.info.labels[index]}: {scores[index]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
