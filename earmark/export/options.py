"""Options of an export, and the model info that results from them.

Conventions: None means that the option is not set.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from earmark.errors import ModelError
from earmark.export.waveform import waveform_info
from earmark.export.weight_precision import require_fp32
from earmark.model_file.info import LONGEST_WINDOW_S, ModelInfo, Precision

TargetName = Literal["onnx", "openvino", "litert", "pt2", "checkpoint"]
Int8Layout = Literal["onnx", "openvino"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        target: The runtime; None: the one of the file's suffix.
        waveform: Whether the graph takes waveforms and computes the log-mel itself.
        seconds: The only window length that the graph takes, in seconds; "dynamic": any length. None: any
            length if the target supports it, else the model's window.
        precision: Storage format of the weights; "int8": most layers compute in 8 bits too. None: as in the
            model.
        fuse: Whether to fold batch norms into the layers before them.
        fuse_eps: Epsilon of the variances when fusing; None: the norms' own, which is exact.
        max_drop: For int8, the largest drop of the metric on the calibration clips.
        int8_layout: For int8, the runtime that the graph is laid out for; "openvino" needs NNCF.
        name: Name of the exported model; None: the model's own, or those of several joined with "+".
    """

    target: TargetName | None = None
    waveform: bool = False
    seconds: float | Literal["dynamic"] | None = None
    precision: Precision | None = None
    fuse: bool = False
    fuse_eps: float | None = None
    max_drop: float = 0.005
    int8_layout: Int8Layout = "onnx"
    name: str | None = None

    @property
    def changes_input(self) -> bool:
        """Whether the graph takes something else than the model."""
        return self.waveform or self.seconds is not None

    def applied(self, info: ModelInfo, any_length: bool) -> ModelInfo:
        """The model info of the export.

        Args:
            info: The model's.
            any_length: Whether the target supports any length.

        Raises:
            ModelError: If the length is out of range, or the model takes another length only.
        """
        if self.precision not in (None, info.precision):
            require_fp32(info)
            info = info.changed(precision=self.precision)
        if self.waveform:
            info = waveform_info(info)
        if self.seconds is None or (self.seconds == "dynamic" and any_length and not info.fixed_window):
            return info if any_length else _with_length(info, info.window_s)
        if self.seconds == "dynamic":
            what = info.name if info.fixed_window else "this target"
            raise ModelError(f"{what} supports one length only: give --seconds {info.window_s:g}, or omit it")
        return _with_length(info, self.seconds)


def _with_length(info: ModelInfo, seconds: float) -> ModelInfo:
    rate = info.front_end.sample_rate
    shortest = info.front_end.min_samples / rate
    if not (isfinite(seconds) and shortest <= seconds <= LONGEST_WINDOW_S):
        raise ModelError(
            f"{info.name}: seconds must be between {shortest:.3f} and {LONGEST_WINDOW_S:g}, got {seconds:g}"
        )
    if info.fixed_window and round(seconds * rate) != round(info.window_s * rate):
        raise ModelError(
            f"{info.name} takes windows of {info.window_s:g} s only, got {seconds:g}: export the original"
        )
    return info.changed(window_s=float(seconds), fixed_window=True)
