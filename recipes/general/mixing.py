"""Draws training batches from a bank: recordings cut, mixed and coloured as log mel energies.

Energies of sounds that are heard together add up, so mixing, gain, equalising and noise need no waveform; the
effects that do are in the variants that prepare.py made. What the student sees is what the teacher sees.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.features.presets import EFFICIENTAT

Rows = NDArray[np.float16]
NUM_MELS = EFFICIENTAT.n_mels
SILENT_ROW = -20.7
"""Log energy of a silent row: the logarithm of the bank's floor, 1e-9."""
PIECE_ROWS, PIECE_HOP = 250, 125
FULL_SCALE = 0.1
"""One over the mean mel energy of noise near full scale."""


def finish(energies: Tensor) -> Tensor:
    """Mel energies (batch, frame, mel) -> log-mel (batch, mel, frame) as the networks see it; in place."""
    logarithms = (energies + EFFICIENTAT.floor).log_()
    return logarithms.add_(EFFICIENTAT.shift).div_(EFFICIENTAT.scale).transpose(1, 2).contiguous()


class Bank:
    """The recordings that prepare.py wrote.

    Args:
        folder: Of mel.f16 and index.json.
    """

    def __init__(self, folder: Path) -> None:
        self.recordings: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())
        count = os.path.getsize(folder / "mel.f16") // (2 * NUM_MELS)
        self.rows: Rows = np.memmap(folder / "mel.f16", np.float16, "r", shape=(count, NUM_MELS))

    def log_mel(self, first: int, count: int) -> Tensor:
        """The log-mel of consecutive rows: float32, shape (1, mel, frame)."""
        return finish(torch.from_numpy(np.array(self.rows[first : first + count])).float().exp_()[None])

    def cut(self, span: Sequence[int], centre: float, frames: int, rng: np.random.Generator) -> Rows:
        """Cuts ``frames`` rows around a place of a variant (0 to 1); a short one is repeated or padded."""
        first, count = span
        if count >= frames:
            start = int(np.clip(centre * count - frames / 2 + rng.integers(-60, 61), 0, count - frames))
            return self.rows[first + start : first + start + frames]
        rows = self.rows[first : first + count]
        if rng.random() < 0.5:
            padded = np.full((frames, NUM_MELS), SILENT_ROW, np.float16)
            start = int(rng.integers(0, frames - count + 1))
            padded[start : start + count] = rows
            return padded
        return np.tile(rows, (-(-frames // count), 1))[:frames]


def training_pieces(
    bank: Bank, teacher_logits: Callable[[Tensor], Tensor]
) -> tuple[list[tuple[int, float]], NDArray[np.float64]]:
    """Lists the pieces of the recordings to train on, and how often each is drawn.

    A piece that the teacher hears a rare class in is drawn more often, up to forty times the least.

    Args:
        bank: The recordings.
        teacher_logits: Log-mel (batch, mel, frame) -> logits (batch, class).

    Returns:
        Recording and relative centre of each piece; and weights.
    """
    pieces: list[tuple[int, float]] = []
    logits = []
    for number, recording in enumerate(bank.recordings):
        if recording["split"] != "train":
            continue
        first, count = recording["spans"][0]
        starts = range(0, max(1, count - PIECE_HOP + 1), PIECE_HOP)
        rows = np.full((len(starts), PIECE_ROWS, NUM_MELS), SILENT_ROW, np.float16)
        for place, start in enumerate(starts):
            piece = bank.rows[first + start : first + min(start + PIECE_ROWS, count)]
            rows[place, : len(piece)] = piece
            pieces.append((number, (start + min(PIECE_HOP, count / 2)) / count))
        for block in np.array_split(rows, -(-len(rows) // 16)):
            logits.append(teacher_logits(finish(torch.from_numpy(block).float().exp_())))
    scores = torch.cat(logits).sigmoid().double().numpy()
    scores[scores < 0.02] = 0.0
    weights = (scores / (scores.sum(0) + 3.0)).sum(1)
    return pieces, np.clip(weights / np.median(weights), 0.3, 12.0)


class Mixer:
    """Makes batches; a batch depends on its key alone.

    Args:
        bank: The recordings.
        pieces: Of training_pieces.
        weights: Of training_pieces.
    """

    def __init__(self, bank: Bank, pieces: list[tuple[int, float]], weights: NDArray[np.float64]) -> None:
        self.bank = bank
        self.pieces = pieces
        self.cumulative = np.cumsum(weights / weights.sum())

    def batch(self, key: Sequence[int], size: int, frames: int) -> Tensor:
        """Log-mels, float32, shape (size, mel, frames).

        Args:
            key: Seed of everything drawn.
            size: Number of inputs.
            frames: Length of each, 10 ms a frame.
        """
        rng = np.random.default_rng(key)
        mixed = rng.random(size) < 0.6
        thrice = mixed & (rng.random(size) < 0.25)
        owners = np.concatenate([np.flatnonzero(mixed), np.flatnonzero(thrice)])
        rows = np.stack([self._draw(rng, frames) for _ in range(size + len(owners))])
        energies = torch.from_numpy(rows).float().exp_()
        reversed_ = torch.from_numpy(rng.random(len(rows)) < 0.05)
        energies[reversed_] = energies[reversed_].flip(1)
        levels = energies.mean((1, 2)).clamp_min(1e-8)
        inputs = energies[:size]
        _mix(inputs, energies[size:], owners, levels, rng)
        _add_noise(inputs, levels, rng)
        inputs = inputs * torch.from_numpy(_colour(levels[:size].numpy(), rng)).float()[:, None, :]
        _shift(inputs, rng)
        return finish(inputs.clamp_max_(1e6))

    def _draw(self, rng: np.random.Generator, frames: int) -> Rows:
        place = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.pieces) - 1)
        number, centre = self.pieces[place]
        spans = self.bank.recordings[number]["spans"]
        return self.bank.cut(spans[int(rng.integers(0, len(spans)))], centre, frames, rng)


def _mix(
    inputs: Tensor, others: Tensor, owners: NDArray[np.intp], levels: Tensor, rng: np.random.Generator
) -> None:
    """Adds each other sound at -15 to 5 dB of its owner's level; some begin, end or take over midway."""
    frames = inputs.shape[1]
    ratios = torch.from_numpy(10 ** (rng.uniform(-15, 5, len(owners)) / 10)).float()
    gains = (ratios * levels[owners] / levels[len(inputs) :]).clamp_max(1e4)
    for other, owner, gain in zip(others, owners, gains.tolist(), strict=True):
        begin, end, chance = 0, frames, rng.random()
        if chance < 0.3:
            begin, end = sorted(int(value) for value in rng.integers(0, frames + 1, 2))
        elif chance < 0.42:
            inputs[owner, int(rng.integers(frames // 5, frames)) :] = 0
        inputs[owner, begin:end].add_(other[begin:end], alpha=gain)


def _add_noise(inputs: Tensor, levels: Tensor, rng: np.random.Generator) -> None:
    """Adds stationary noise of a random tilt to some inputs."""
    for place in np.flatnonzero(rng.random(len(inputs)) < 0.15):
        tilt = np.exp(np.linspace(0, rng.uniform(-5, 3), NUM_MELS))
        relative = rng.random() < 0.7
        level = float(levels[place]) * 10 ** rng.uniform(-4, -0.5) if relative else 10 ** rng.uniform(-6, -1)
        noise = rng.standard_gamma(2.5, tuple(inputs.shape[1:])) * tilt
        inputs[place] += torch.from_numpy((noise * (level / noise.mean())).astype(np.float32))


def _colour(levels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Gains of every band, shape (batch, mel): level, equaliser, band limits."""
    decibels = np.zeros((len(levels), NUM_MELS))
    for row, level in zip(decibels, levels, strict=True):
        if rng.random() < 0.35:
            row += np.interp(np.arange(NUM_MELS), np.linspace(0, NUM_MELS - 1, 6), rng.uniform(-9, 9, 6))
        if rng.random() < 0.12:
            row[int(rng.integers(50, 120)) :] -= rng.uniform(30, 70)
        if rng.random() < 0.06:
            row[: int(rng.integers(2, 30))] -= rng.uniform(20, 60)
        gain, chance = rng.uniform(-20, 6), rng.random()
        if chance < 0.06:
            gain -= rng.uniform(10, 40)
        elif chance < 0.10:
            gain = float(np.clip(10 * np.log10(rng.uniform(0.5, 30) * FULL_SCALE / float(level)), -30, 40))
        row += gain
    return 10 ** (decibels / 10)


def _shift(inputs: Tensor, rng: np.random.Generator) -> None:
    """Moves some inputs by up to six bands up or down the mel axis."""
    for place in np.flatnonzero(rng.random(len(inputs)) < 0.15):
        bands = int(rng.integers(-6, 7))
        inputs[place] = torch.roll(inputs[place], bands, 1)
        if bands > 0:
            inputs[place, :, :bands] = inputs[place, :, bands : bands + 1]
        elif bands < 0:
            inputs[place, :, bands:] = inputs[place, :, bands - 1 : bands]
