"""Lengths of windows and hops, and what a model can take.

Conventions: seconds outside, samples at the model's sample rate inside.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from earmark.errors import ModelError
from earmark.model_file.info import LONGEST_WINDOW_S, ModelInfo

WindowLength = float | Literal["whole"] | None
"""Length of a window in seconds, "whole" for all of a recording, or None for the model's own."""

LONGEST_HOP_S = 86400.0
"""Limit of ``hop_s``: a day."""


class Lengths(NamedTuple):
    """Window and hop in samples; with a window of None, the recording is one, of at most ``hop`` samples."""

    window: int | None
    hop: int


def window_and_hop(info: ModelInfo, window_s: float | None, hop_s: float | None) -> tuple[int, int]:
    """Returns window and hop in samples.

    Args:
        info: Of the model.
        window_s: Length of a window in seconds; None: the model's own.
        hop_s: Hop in seconds; None: the window.

    Raises:
        ModelError: If one is out of range, or the model takes only windows of another length.
    """
    rate, shortest = info.front_end.sample_rate, info.front_end.min_samples
    window_s = info.window_s if window_s is None else window_s
    hop_s = window_s if hop_s is None else hop_s
    if not shortest / rate <= window_s <= LONGEST_WINDOW_S:
        raise ModelError(
            f"window_s must be between {shortest / rate:.3f} and {LONGEST_WINDOW_S:g}, got {window_s:g}"
        )
    if not 1 / rate <= hop_s <= LONGEST_HOP_S:
        raise ModelError(f"hop_s must be between {1 / rate:g} and {LONGEST_HOP_S:g}, got {hop_s:g}")
    length, hop = round(window_s * rate), round(hop_s * rate)
    require_window(info, length)
    return length, hop


def whole_recording(info: ModelInfo, hop_s: float | None) -> Lengths:
    """Returns the lengths of a recording as one window.

    Raises:
        ModelError: If a hop is given, or the model takes only windows of one length.
    """
    if hop_s is not None:
        raise ModelError(f"a recording as one window has no hop: omit hop_s, got {hop_s:g}")
    longest = round(LONGEST_WINDOW_S * info.front_end.sample_rate)
    if info.fixed_window:
        require_window(info, longest)
    return Lengths(None, longest)


def require_window(info: ModelInfo, length: int) -> None:
    """Refuses a window that a model does not take.

    Args:
        info: Of the model.
        length: Of the window, in samples.

    Raises:
        ModelError: If the model takes only windows of another length.
    """
    if info.fixed_window and length != round(info.window_s * info.front_end.sample_rate):
        raise ModelError(
            f"model {info.name} takes only windows of {info.window_s:g} s: omit window_s, or export the "
            "model again for any length"
        )
