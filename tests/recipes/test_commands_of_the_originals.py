"""Recipes have the settings of the commands that the reference systems document, and of their defaults."""

from pathlib import Path

import pytest

from earmark.training.config.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
FINE_TUNING = {
    "model.new_head": True,
    "augment.mixup_alpha": 0.3,
    "augment.mixup_larger": True,
    "augment.gain_db": (-12, 11),
    "augment.waveform_mix_probability": 0.5,
    "augment.roll_s": 4000 / 32000,
    "augment.f_min_range": 10,
    "augment.f_max_range": 2000,
    "schedule.kind": "ramp",
    "schedule.warmup_epochs": 10,
    "schedule.ramp_down_start_epoch": 10,
    "schedule.ramp_down_epochs": 65,
    "schedule.final_lr_scale": 0.01,
    "optimizer.epochs": 80,
    "optimizer.weight_decay": 0,
}
"""Defaults of EfficientAT's programs for DCASE20, ESC-50, FSD50K and OpenMIC."""
AUDIOSET = {
    "model.new_head": True,
    "augment.mixup_alpha": 0.3,
    "augment.gain_db": (0, 0),
    "augment.roll_s": 0,
    "schedule.kind": "ramp",
    "schedule.warmup_epochs": 8,
    "schedule.ramp_down_start_epoch": 80,
    "schedule.ramp_down_epochs": 95,
    "optimizer.epochs": 200,
    "teacher.0.distill_weight": 0.9,
    "teacher.0.label_weight": 0.1,
    "teacher.0.temperature": 1,
    "data.sources.0.clips_per_epoch": 100_000,
    "data.sources.0.balanced": True,
}
"""Defaults of EfficientAT's program for AudioSet."""


def command(start: str | None, batch_size: int, learning_rate: float, **further: object) -> dict[str, object]:
    architecture = {"model.init_from": start}
    return (
        architecture
        | {"optimizer.batch_size": batch_size, "optimizer.learning_rate": learning_rate}
        | further
    )


COMMANDS = {
    "audioset/mn10": AUDIOSET | command("mn10_im", 60, 4e-4),
    "audioset/dymn10": AUDIOSET | command("dymn10_im", 120, 1e-3) | {"model.annealing.start": 30},
    "audioset/dymn10_adamw": AUDIOSET
    | command("dymn10_im", 120, 1e-3)
    | {"optimizer.weight_decay": 1e-4, "optimizer.decay_all": True},
    "audioset/mn01_tiny": AUDIOSET
    | command(None, 120, 8e-4)
    | {"model.new_head": False, "model.arguments": {"se_dims": "f", "head": "fully_convolutional"}},
    "fsd50k/mn10": FINE_TUNING | command("mn10_as", 64, 7e-5),
    "fsd50k/dymn10": FINE_TUNING | command("dymn10_as", 32, 4e-5),
    "dcase20/mn10": FINE_TUNING | command("mn10_as", 64, 8e-4),
    "dcase20/dymn10": FINE_TUNING | command("dymn10_as", 32, 3e-4),
    "esc50/mn10": FINE_TUNING | command("mn10_as", 128, 6e-5),
    "esc50/dymn10": FINE_TUNING | command("dymn10_as", 64, 4e-5),
    "openmic/mn10": FINE_TUNING | command("mn10_as", 64, 1e-5),
    "openmic/dymn10": FINE_TUNING | command("dymn10_as", 32, 2e-5),
    "fsdkaggle2018/tutorial_resnetish18": {
        "front_end.n_fft": 1024,
        "front_end.n_mels": 64,
        "window_s": 5,
        "augment.mixup_alpha": 0,
        "augment.mask_mels": 0,
        "data.sources.0.num_folds": 10,
        "data.folds": (1,),
        "optimizer.learning_rate": 3e-4,
        "optimizer.weight_decay": 0,
        "optimizer.batch_size": 64,
        "optimizer.epochs": 100,
        "schedule.final_lr_scale": 1,
        "evaluation.keep": "best",
    },
}


@pytest.mark.parametrize(("name", "values"), COMMANDS.items(), ids=COMMANDS)
def test_settings_are_those_of_the_original(name, values):
    recipe = load_recipe(RECIPES / f"{name}.toml")
    for key, wanted in values.items():
        value: object = recipe
        for part in key.split("."):
            value = value[int(part)] if part.isdigit() else getattr(value, part)
        assert value == wanted, key
    assert recipe.model.architecture in name or "tiny" in name or "fsdkaggle" in name
