"""Recipe keys that have a new name, for error messages and for run folders of earlier versions.

Conventions: a recipe with an old key is refused with the new name; only stored files are translated. Keys are
dotted, without the positions in lists (``data.sources.pack``). An empty new name: the key is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED = {
    "model.base": "model.init_from",
    "data.bad_share": "data.max_bad_fraction",
    "data.mix_within": "data.shuffle_shards",
    "data.sources.pack": "data.sources.shards",
    "data.sources.deal_folds": "data.sources.num_folds",
    "data.sources.train_on": "data.sources.train_filter",
    "augment.crop_share": "augment.crop_epoch_fraction",
    "augment.shift_s": "",
    "augment.impulses": "augment.impulse_responses",
    "augment.mix_probability": "augment.waveform_mix_probability",
    "augment.mix_alpha": "augment.waveform_mix_alpha",
    "augment.limit_probability": "augment.low_pass_probability",
    "augment.limit_lowest_hz": "augment.low_pass_min_hz",
    "augment.crop_area": "augment.resized_crop_scale",
    "augment.crop_aspect": "augment.resized_crop_ratio",
    "augment.style_probability": "augment.mixstyle_probability",
    "augment.style_alpha": "augment.mixstyle_alpha",
    "augment.mixup_share": "augment.mixup_epoch_fraction",
    "augment.mixup_alike": "augment.mixup_per_batch",
    "schedule.per": "schedule.interval",
    "schedule.warm_up_epochs": "schedule.warmup_epochs",
    "schedule.last_factor": "schedule.final_lr_scale",
    "schedule.hold_epochs": "schedule.ramp_down_start_epoch",
    "schedule.fall_epochs": "schedule.ramp_down_epochs",
    "optimizer.base_factor": "optimizer.backbone_lr_scale",
    "optimizer.accumulate": "optimizer.grad_accum_steps",
    "optimizer.clip_norm": "optimizer.max_grad_norm",
    "optimizer.average_decay": "optimizer.ema_decay",
    "optimizer.recompute": "optimizer.checkpoint_stages",
    "teacher.output": "teacher.tensor",
    "teacher.weight": "teacher.imitation_weight",
    "teacher.center": "teacher.target_mean",
    "teacher.spread": "teacher.target_std",
    "judge.hear": "evaluation.windows",
    "judge.every": "evaluation.every_epochs",
    "judge.keep": "evaluation.keep",
    "judge.quiet_share": "evaluation.max_false_positive_rate",
    "judge.lowest_threshold": "evaluation.min_threshold",
    "judge.quiet_by": "evaluation.negative_group",
    "judge.quiet_manifests": "evaluation.negative_manifests",
    "judge.quiet_on": "evaluation.negative_filter",
    "judge.calibrate": "evaluation.calibration",
    "judge.target": "evaluation.threshold_target",
    "judge": "evaluation",
    "logging.to": "logging.loggers",
    "run.keep_memory": "",
}
"""Old key -> new key."""

REMEDIES = {
    "augment.shift_s": "use augment.roll_s",
    "run.keep_memory": "preload jemalloc (docs/train.md)",
}
"""What replaces a key that is gone."""

_IGNORED_DEFAULTS = {"augment.shift_s": 0.0}
"""Values of keys that are gone at which a stored run can still be resumed."""


def old_keys(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[tuple[str, ...], str]]:
    """Every old key among the values of a recipe: its location, and what to do about it."""
    for name, value in values.items():
        key = f"{path}.{name}" if path else name
        below = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
        deeper = [found for one in below for found in old_keys(one, key)]
        if deeper:
            yield from deeper
        elif key in RENAMED:
            yield tuple(key.split(".")), advice(key)


def advice(key: str) -> str:
    """The sentence of an error about an old key; empty if the key was never renamed."""
    if key not in RENAMED:
        return ""
    if new := RENAMED[key]:
        return f"key {key!r} is now {new!r}"
    return f"key {key!r} has been removed: {REMEDIES[key]}"


def translate(stored: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values of a stored recipe under today's keys; today's keys stay as they are."""
    translated: dict[str, Any] = {}
    for name, value in stored.items():
        key = f"{path}.{name}" if path else name
        if key in _IGNORED_DEFAULTS and value == _IGNORED_DEFAULTS[key]:
            continue
        if isinstance(value, Mapping):
            value = translate(value, key)
        elif isinstance(value, list):
            value = [translate(one, key) if isinstance(one, Mapping) else one for one in value]
        translated[(RENAMED.get(key) or name).rpartition(".")[2]] = value
    return translated
