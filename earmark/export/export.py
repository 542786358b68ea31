"""Exports a model, or several joined into one, to a file for a runtime.

Conventions: the input of a graph is ``log_mel`` or ``waveform``, its outputs are ``logits`` (batch, class)
and ``embedding`` (batch, channel); batch and length are dynamic unless a length is given. Outputs are
verified before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.export.calibration_set import collect
from earmark.export.ensemble import join_sources
from earmark.export.fuse import fuse_source
from earmark.export.options import ExportOptions, TargetName
from earmark.export.quantize import Quantized, quantize
from earmark.export.source import ExportSource, onnx_session
from earmark.export.targets import TARGETS, Target, find_target
from earmark.export.verify import TOLERANCE, Recording, Verification, verify
from earmark.export.weight_precision import TOLERANCES, require_fp32
from earmark.model_file.atomic import write_all_atomically
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.models.network import Network

Progress = Callable[[str], object]
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        info: Model info of the export.
        verification: Its differences from the model.
        files: The main file, and those next to it.
        parameters: Number of parameters of the model and of the export.
        norms: Number of batch norms that were folded.
        quantized: Details of an export in int8; None otherwise.
    """

    info: ModelInfo
    verification: Verification
    files: tuple[Path, ...]
    parameters: tuple[int, int]
    norms: int = 0
    quantized: Quantized | None = None

    def summary(self) -> str:
        """Input, changes, differences and files, for people."""
        info, (before, after) = self.info, self.parameters
        length = f"{info.window_s:g} s" if info.fixed_window else "any length"
        lines = [f"{info.name} takes {_input(info)}, {length}"]
        if self.norms:
            lines.append(f"{self.norms} batch norms folded, {after:,} parameters (before: {before:,})")
        if self.quantized is not None:
            lines.append(self.quantized.summary())
        else:
            lines.append(
                f"{info.precision}: {after * _BITS.get(info.precision, 8) / 8192:,.2f} KiB of parameters"
            )
        sizes = ", ".join(f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in self.files)
        return "\n".join(
            [*lines, "differences from the model:", self.verification.summary(), f"wrote {sizes}"]
        )


def export(
    sources: ExportSource | Sequence[ExportSource],
    path: str | PathLike[str],
    options: ExportOptions = ExportOptions(),  # noqa: B008
    *,
    calibration_clips: Sequence[Clip] = (),
    recordings: Sequence[Recording] = (),
    progress: Progress = lambda text: None,
) -> Exported:
    """Exports a model, verifies its outputs, and writes it.

    Args:
        sources: The model; or several, whose logits are averaged in one file.
        path: The file, replaced atomically; further files of a target get the same name with other suffixes.
        options: Target and form of the export.
        calibration_clips: For int8, from :func:`earmark.export.calibration_set.find_clips`.
        recordings: Recordings to verify with, besides the shipped one.
        progress: Called with a description of each step.

    Raises:
        ModelError: If the options do not apply to the model or the target, int8 lowers the metric by more
            than ``max_drop``, or the outputs differ by more than ``TOLERANCE`` or that of the precision.
            Nothing is written then.
        MissingExtraError: If the package of the target is not installed.
        DataError: If a calibration clip cannot be read.
        AudioError: If a recording cannot be read.
    """
    path = Path(path)
    name = find_target(path, options.target)
    target = TARGETS[name]
    _check_options(options, path, target, bool(calibration_clips))
    members = [sources] if isinstance(sources, ExportSource) else list(sources)
    fused, norms = _fuse(members, options)
    original, source = join_sources(members, options.name), join_sources(fused, options.name)
    parameters, quantized = (original.count_parameters(), source.count_parameters()), None
    if options.precision == "int8":
        quantized = _quantize(source, calibration_clips, options, progress)
        original = source = ExportSource(quantized.info, content=quantized.content, exact=source)
    progress(f"writing the {name} file")
    info = _with_note(options.applied(source.info, target.any_length), name, options)
    files = target.make(source, info)
    progress("verifying outputs")
    session, tolerance = target.open(files, info), _tolerance(original, info, target, options)
    verification = _require_agreement(verify(original, session, info, recordings, tolerance), info, tolerance)
    contents = {path: files.pop(target.suffix)}
    contents |= {path.with_suffix(suffix): content for suffix, content in files.items()}
    write_all_atomically(contents)
    return Exported(info, verification, tuple(contents), parameters, norms, quantized)


def _check_options(options: ExportOptions, path: Path, target: Target, has_clips: bool) -> None:
    if options.precision not in (None, *target.precisions):
        known = " or ".join(target.precisions)
        raise ModelError(
            f"{path}: precision of a {target.suffix} file must be {known}, got {options.precision}"
        )
    if options.changes_input and not target.has_graph:
        raise ModelError(f"{path}: a checkpoint has no graph: omit --waveform and --seconds")
    if (options.precision == "int8") != has_clips:
        problem = "applies to int8 only" if has_clips else "is required for int8"
        raise ModelError(f"--calibration-set {problem}")
    if options.fuse_eps is not None and not options.fuse:
        raise ModelError("--without-epsilon applies to --fuse only")


def _fuse(members: Sequence[ExportSource], options: ExportOptions) -> tuple[list[ExportSource], int]:
    """Folds batch norms if asked for, and those of networks for int8."""
    fused, norms = [], 0
    for member in members:
        if options.fuse or (options.precision == "int8" and member.network is not None):
            member, count = fuse_source(member, eps=options.fuse_eps)
            norms += count
        fused.append(member)
    return fused, norms


def _quantize(
    source: ExportSource, clips: Sequence[Clip], options: ExportOptions, progress: Progress
) -> Quantized:
    require_fp32(source.info)
    content = source.content
    if source.network is not None:
        content = attach_info(source.graph(source.info).SerializeToString(), source.info)
    clip_set = collect(
        onnx_session(content), source.info, clips, before=lambda clip: progress(f"processing {clip.path}")
    )
    return quantize(
        content, source.info, clip_set, options.max_drop, layout=options.int8_layout, progress=progress
    )


def _tolerance(original: ExportSource, info: ModelInfo, target: Target, options: ExportOptions) -> float:
    if options.fuse_eps is not None:
        return math.inf  # another epsilon changes the outputs
    is_rounded = original.network is not None and "fp16" in target.precisions
    if info.precision == original.info.precision and not is_rounded:
        return TOLERANCE
    return TOLERANCES[info.precision]


def _require_agreement(verification: Verification, info: ModelInfo, tolerance: float) -> Verification:
    if not verification.passed:
        error = ModelError(
            f"{info.name}: outputs of the export differ from the model's by {verification.difference:.2g} "
            f"(limit {tolerance:g}): nothing was written"
        )
        error.add_note(verification.summary())
        raise error
    return verification


def _input(info: ModelInfo) -> str:
    front_end = info.front_end
    if front_end.graph_input == "log_mel":
        return "log-mels"
    return f"waveforms at {front_end.sample_rate} Hz, resampling not included"


def _with_note(info: ModelInfo, target: TargetName, options: ExportOptions) -> ModelInfo:
    """The model info with a note on the export, unless it is a plain model file or checkpoint."""
    if target in ("onnx", "checkpoint") and not options.changes_input:
        return info
    note = {"target": target, "takes": _input(info)}
    return info.changed(provenance={**info.provenance, "export": note})


def export_model(network: Network, info: ModelInfo, path: str | PathLike[str]) -> float:
    """Exports a network to a model file.

    Args:
        network: From the registry; it is set to evaluation mode.
        info: The model info.
        path: The file, replaced atomically.

    Returns:
        The largest difference between the outputs of network and file.

    Raises:
        ModelError: As :func:`export`.
    """
    return export(ExportSource(info, network.eval()), path).verification.difference


def compare(network: Network, content: bytes, info: ModelInfo) -> float:
    """The largest difference between the outputs of a network and the content of a model file.

    Returns:
        That of logits and embedding, relative to the largest output if that is above 1.
    """
    return verify(ExportSource(info, network), onnx_session(content), info).difference
