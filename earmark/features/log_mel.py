"""The log-mel transform in NumPy, as inference computes it.

Conventions: a waveform is float32 in [-1, 1], shape (time,) or (batch, time), at ``FrontEnd.sample_rate``; a
log-mel is float32, shape (mel, frame) or (batch, mel, frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from earmark.errors import AudioError
from earmark.features.front_end import FrontEnd
from earmark.features.mel import analysis_window, mel_filter_bank

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

_BLOCK = 64  # frames whose spectra fit into the processor's cache: measured faster than all at once
_GROUP = 16  # mel bands per matrix product
STANDARD_DEVIATION_FLOOR = 1e-8
"""Is added to the standard deviation that divides a waveform or a log-mel."""
_LOUDEST = 1e6  # accepted amplitude, nominally 1: its power spectrum still fits float32


class LogMel:
    """Computes the log-mel spectrograms that the networks take.

    Source: Schmid et al., arXiv:2211.04772, section 3, for the default front-end; golden
    tests/golden/front_end.npz for all presets. A frame does not depend on which other frames are computed.

    Args:
        front_end: All constants of the transform.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end

    def __call__(self, waveform: Float32s) -> Float32s:
        """Computes the log-mel of one waveform or of a batch.

        Args:
            waveform: float32 in [-1, 1], shape (time,) or (batch, time), at ``front_end.sample_rate``.

        Returns:
            float32, shape (n_mels, frame) or (batch, n_mels, frame); see :meth:`FrontEnd.num_frames`.

        Raises:
            AudioError: If the waveform is of another type or shape, shorter than ``front_end.min_samples``,
                or holds NaN, infinities or samples far outside [-1, 1].
        """
        _validate(waveform, 1, 2)
        num_frames = self.front_end.num_frames(waveform.shape[-1])
        rows = np.atleast_2d(waveform)
        log_mel = np.empty((len(rows), self.front_end.n_mels, num_frames), np.float32)
        for index, row in enumerate(rows):
            signal = self._standardized(row)
            self._fill(log_mel[index : index + 1], signal, np.zeros((1, 1), np.int64), len(row))
            self._standardize_log_mel(log_mel[index])
        return log_mel if waveform.ndim == 2 else log_mel[0]

    def windows(self, waveform: Float32s, starts: Sequence[int], length: int) -> Float32s:
        """Computes the log-mel of several windows of one waveform; shared frames are computed once.

        Windows share frames where their starts are a multiple of ``hop_length`` apart, apart from the few
        frames at the ends of a window that reach into its reflected padding.

        Args:
            waveform: float32 in [-1, 1], shape (time,), at ``front_end.sample_rate``.
            starts: First sample of each window.
            length: Samples in each window.

        Returns:
            float32, shape (window, n_mels, frame): for each start ``s`` the same as
            ``self(waveform[s : s + length])``.

        Raises:
            AudioError: As for a call, or if a window is not within the waveform.
        """
        _validate(waveform, 1)
        num_frames = self.front_end.num_frames(length)
        first = np.asarray(starts, np.int64).reshape(-1, 1)
        log_mel = np.empty((len(first), self.front_end.n_mels, num_frames), np.float32)
        if len(first) == 0:
            return log_mel
        begin, end = int(first.min()), int(first.max()) + length
        if begin < 0 or end > len(waveform):
            raise AudioError(
                f"windows must be within the {len(waveform)} samples of the waveform, got samples {begin} to "
                f"{end}: change starts, or pad the waveform"
            )
        if self.front_end.standardize is True:  # equal frames of two windows differ
            for index, start in enumerate(starts):
                log_mel[index] = self(waveform[start : start + length])
        else:
            self._fill(log_mel, waveform[begin:end], first - begin, length)
            for window in log_mel:
                self._standardize_log_mel(window)
        return log_mel

    def following(self, waveform: Float32s, earlier: Float32s, shift: int) -> Float32s:
        """Computes the log-mel of a window that overlaps an earlier one; frames of both are copied.

        Args:
            waveform: The window, float32 in [-1, 1], shape (time,).
            earlier: Log-mel of a window of the same length, shape (n_mels, frame), which starts
                ``shift * hop_length`` samples before this one.
            shift: Frames from the earlier window to this one, at least 1.

        Returns:
            float32, shape (n_mels, frame): ``self(waveform)`` within rounding errors.

        Raises:
            AudioError: As for a call.
        """
        begins, outside = self._frames(earlier.shape[1], len(waveform))
        inner = np.flatnonzero(~outside)
        if len(inner) <= shift or self.front_end.standardize:
            return self(waveform)
        _validate(waveform, 1)
        first, new, last = int(inner[0]), int(inner[-shift]), int(inner[-1]) + 1
        log_mel = np.empty_like(earlier)
        log_mel[:, first:new] = earlier[:, first + shift : new + shift]
        # Frames at the ends need only samples near the ends, which are few beside those of a long window.
        end, reach = self._end(len(waveform)), self.front_end.n_fft + self.front_end.win_length
        signal = np.empty(end, np.float32)
        for start, stop in ((0, min(reach, end)), (max(0, min(int(begins[new]), end - reach)), end)):
            signal[start:stop] = self._signal(waveform[start : stop + len(waveform) - end])
        log_mel[:, new:last] = self._inner_frames(signal, begins[None, new:last])[0]
        log_mel[:, outside] = self._edge_frames(signal, np.zeros((1, 1), np.int64), begins[outside], end)[0]
        return log_mel

    def _frames(self, num_frames: int, length: int) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """First sample of each frame of a window, and which frames reach beyond the window."""
        begins = np.arange(num_frames) * self.front_end.hop_length
        begins += self.front_end.window_offset - self.front_end.n_fft // 2
        return begins, (begins < 0) | (begins + self.front_end.win_length > self._end(length))

    def _end(self, length: int) -> int:
        """Samples of a window's signal: pre-emphasis takes one."""
        return length - bool(self.front_end.preemphasis)

    def _fill(self, log_mel: Float32s, waveform: Float32s, first: Int64s, length: int) -> None:
        """Computes windows of ``length`` samples from ``first`` (window, 1) into (window, mel, frame)."""
        signal = self._signal(waveform)
        begins, outside = self._frames(log_mel.shape[2], length)
        log_mel[:, :, ~outside] = self._inner_frames(signal, first + begins[~outside])
        log_mel[:, :, outside] = self._edge_frames(signal, first, begins[outside], self._end(length))

    def _inner_frames(self, signal: Float32s, begins: Int64s) -> Float32s:
        """Computes the frames that begin at sample ``begins`` (window, frame): (window, mel, frame)."""
        if begins.size == 0:  # the windows may be shorter than a frame
            return np.empty((len(begins), self.front_end.n_mels, 0), np.float32)
        unique, places = np.unique(begins, return_inverse=True)
        views = np.lib.stride_tricks.sliding_window_view(signal, self.front_end.win_length)
        shared = self._log_mel(lambda block: views[unique[block]], len(unique))
        by_window: Float32s = shared[:, places.reshape(begins.shape)].transpose(1, 0, 2)
        return by_window

    def _edge_frames(self, signal: Float32s, first: Int64s, begins: Int64s, end: int) -> Float32s:
        """Computes the frames that reach beyond ``[0, end)`` of each window, by reflection.

        Returns:
            Shape (window, mel, frame).
        """
        window_starts, frame_begins = (grid.ravel() for grid in np.broadcast_arrays(first, begins))
        taps = np.arange(self.front_end.win_length)

        def frames(block: slice) -> Float32s:
            mirrored = np.abs(frame_begins[block, None] + taps)
            mirrored = end - 1 - np.abs(end - 1 - mirrored)
            mirrored_signal: Float32s = signal[window_starts[block, None] + mirrored]
            return mirrored_signal

        edges = self._log_mel(frames, len(frame_begins))
        by_window: Float32s = edges.reshape(len(edges), len(first), len(begins)).transpose(1, 0, 2)
        return by_window

    def _log_mel(self, frames: Callable[[slice], Float32s], count: int) -> Float32s:
        """Computes ``count`` frames; ``frames`` returns a slice of them, (frame, time): (mel, frame)."""
        energies = np.empty((self.front_end.n_mels, count), np.float32)
        # Zeros follow the window: its position within n_fft changes only phases. Padding in rfft would take
        # half as long again.
        padded = np.zeros((min(count, _BLOCK), self.front_end.n_fft), np.float32)
        for start in range(0, count, _BLOCK):
            block = slice(start, min(start + _BLOCK, count))
            rows = padded[: block.stop - block.start]
            np.multiply(frames(block), self._window, out=rows[:, : self.front_end.win_length])
            if not rows[:, self.front_end.win_length // 2].any() and not rows.any():
                energies[:, block] = 0  # silence, such as the padding of a short clip
                continue
            squares = np.fft.rfft(rows).view(np.float32)  # real and imaginary parts alternate
            squares *= squares
            power = squares[:, ::2] + squares[:, 1::2]
            if self.front_end.power != 2.0:
                power **= self.front_end.power / 2
            for bands, bins, weights in self._bank:
                energies[bands, block] = weights @ power[:, bins].T
        return self._compressed(energies)

    def _compressed(self, energies: Float32s) -> Float32s:
        """Applies floor, ceiling, logarithm, shift and scale in place."""
        front_end = self.front_end
        if front_end.floor_mode == "add":
            energies += np.float32(front_end.floor)
        else:
            np.maximum(energies, np.float32(front_end.floor), out=energies)
        if front_end.ceiling is not None:
            np.minimum(energies, np.float32(front_end.ceiling), out=energies)
        with np.errstate(divide="ignore"):  # without a floor, silence is minus infinity
            (np.log10 if front_end.log == "db" else np.log)(energies, out=energies)
        if front_end.log == "db":
            energies *= np.float32(10.0)
        energies += np.float32(front_end.shift)
        energies /= np.float32(front_end.scale)
        return energies

    def _standardized(self, waveform: Float32s) -> Float32s:
        """A whole window with mean 0 and standard deviation 1, if the front-end says so."""
        if self.front_end.standardize is not True:
            return waveform
        check_level(waveform)
        centred: Float32s = waveform - waveform.mean()
        centred /= centred.std() + np.float32(STANDARD_DEVIATION_FLOOR)
        return centred

    def _standardize_log_mel(self, log_mel: Float32s) -> None:
        """Gives a log-mel (mel, frame) mean 0 and standard deviation 1 in place, if the front-end says so."""
        if self.front_end.standardize == "log_mel":
            log_mel -= log_mel[0, 0]  # equal values become exactly 0, not rounding errors of their mean
            log_mel -= log_mel.mean()
            log_mel /= log_mel.std() + np.float32(STANDARD_DEVIATION_FLOOR)

    def _signal(self, waveform: Float32s) -> Float32s:
        """Checks the waveform and applies pre-emphasis."""
        check_level(waveform)
        if not self.front_end.preemphasis:
            return np.ascontiguousarray(waveform)
        emphasized: Float32s = waveform[:-1] * np.float32(-self.front_end.preemphasis)
        emphasized += waveform[1:]
        return emphasized

    @cached_property
    def _window(self) -> Float32s:
        return analysis_window(self.front_end).astype(np.float32)

    @cached_property
    def _bank(self) -> list[tuple[slice, slice, Float32s]]:
        """The filter bank in groups of neighbouring bands: (bands, bins, weights (band, bin)).

        Small products are not only less work: BLAS runs them on one thread, whereas on a busy machine
        threads that wait for each other made the transform up to a hundred times slower.
        """
        bank = mel_filter_bank(self.front_end).astype(np.float32)
        groups = []
        for start in range(0, len(bank), _GROUP):
            bands = slice(start, min(start + _GROUP, len(bank)))
            reached = np.flatnonzero(bank[bands].any(axis=0))
            bins = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 1)
            groups.append((bands, bins, np.ascontiguousarray(bank[bands, bins])))
        return groups


def check_level(waveform: Float32s) -> None:
    """Raises AudioError if a waveform has NaN, infinities or samples far outside [-1, 1]."""
    lowest, highest = waveform.min(), waveform.max()
    if not (lowest >= -_LOUDEST and highest <= _LOUDEST):  # NaN is neither
        raise AudioError(
            f"samples must be finite and within {_LOUDEST:g}, got {lowest:g} to {highest:g}: "
            "remove NaN, scale the waveform to [-1, 1]"
        )


def _validate(waveform: Float32s, *dimensions: int) -> None:
    if not isinstance(waveform, np.ndarray):
        raise AudioError(
            f"the waveform must be a NumPy array of float32, got {type(waveform).__name__}: convert it"
        )
    if waveform.ndim not in dimensions or waveform.dtype != np.float32:
        shapes = " or ".join({1: "(time,)", 2: "(batch, time)"}[dimension] for dimension in dimensions)
        raise AudioError(
            f"the waveform must be float32 of shape {shapes}, "
            f"got {waveform.dtype} of shape {waveform.shape}: convert it"
        )
