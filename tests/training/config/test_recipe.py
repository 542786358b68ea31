"""A recipe is checked before anything runs, and every one that ships passes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from earmark.errors import RecipeError
from earmark.features.front_end import FrontEnd
from earmark.models import architectures
from earmark.models.registry import create_config
from earmark.training.config.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))

LEAST = """
name = "toy"
description = "tones"
source = "a test"
command = "earmark train toy.toml"
cost = "nothing"
expected = "nothing"
window_s = 1.0

[model]
architecture = "mn01"

[data]
sources = [{ manifests = ["clips.csv"] }]

[optimizer]
learning_rate = 1e-3
"""


@pytest.fixture
def least(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(LEAST)
    return path


def refusal(path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name + "/" + path.stem)
class TestEveryRecipe:
    def test_it_fits(self, path):
        recipe = load_recipe(path)
        assert recipe.name
        assert recipe.license

    def test_its_network_can_be_built(self, path):
        model = load_recipe(path).model
        assert model.architecture in architectures()
        create_config(model.architecture, num_classes=2, **model.arguments)

    def test_its_command_names_it(self, path):
        assert str(path.relative_to(ROOT)) in load_recipe(path).command.split()


def test_missing_keys_have_defaults(least):
    recipe = load_recipe(least)
    assert recipe.task == "multi_label"
    assert recipe.front_end == FrontEnd()
    assert recipe.window_length == 32000
    assert recipe.data.sources[0].manifests == (Path("clips.csv"),)
    settings = recipe.augment
    assert {settings.roll_s, settings.waveform_mix_probability, settings.mixup_alpha, settings.mask_s} == {0}
    assert (settings.gain_db, settings.speed) == ((0, 0), (1, 1))


def test_a_recipe_cannot_be_changed(least):
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe(least).optimizer.epochs = 3


def test_a_recipe_can_be_stored_and_checked_again(least):
    recipe = load_recipe(least, ["augment.gain_db=[-6, 3]", "front_end.n_mels=64", "data.folds=[1, 2]"])
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("override", "key", "allowed"),
    [
        ("optimiser.epochs=1", "optimiser", "augment"),
        ("optimizer.lr=1", "optimizer.lr", "learning_rate"),
        ("model.width=0.4", "model.width", "arguments"),
        ("data.source=1", "data.source", "sources"),
        ("augment.mix=1", "augment.mix", "waveform_mix_probability"),
        ("evaluation.threshold=1", "evaluation.threshold", "min_threshold"),
        (
            'data.sources=[{ manifests = ["a.csv"], licence = "CC0" }]',
            "data.sources.0.licence",
            "train_filter",
        ),
    ],
)
def test_an_unknown_key_names_the_allowed_ones(least, override, key, allowed):
    message = refusal(least, override)
    assert f"unknown key '{key}'; allowed here: " in message
    assert allowed in message.partition("allowed here: ")[2].split("; ")[0]


def test_an_unknown_key_of_the_front_end_names_the_allowed_ones(least):
    message = refusal(least, "front_end.n_mel=64")
    assert "front_end: unknown key 'n_mel'; allowed here: sample_rate, n_fft" in message


@pytest.mark.parametrize(
    "override", ["front_end.hop_length=0", "front_end.log=log2", "front_end.f_max=20000"]
)
def test_an_impossible_front_end_is_refused(least, override):
    name = override.partition("=")[0].removeprefix("front_end.")
    assert f"front_end: front-end: {name} must be" in refusal(least, override)


def test_a_front_end_that_is_no_table_is_refused(least):
    assert "front_end" in refusal(least, "front_end=efficientat")


@pytest.mark.parametrize(
    "override",
    [
        "window_s=0",
        "window_s=ten",
        "task=multi",
        "padding=reflect",
        "window_s=inf",
        "window_s=nan",
        "window_s=1e9",
        "seed=-1",
        "seed=1e23",
        'name="../../x"',
        "name=a/b",
        "name=..",
        "name=.hidden",
        "name=",
        'name="a\\u001bb"',
        'name="a "',
        "model.architecture=1",
        "model.arguments=3",
        "data.sources=[]",
        "data.sources=clips.csv",
        "data.folds=[0]",
        "data.folds=1",
        "data.folds=[1, 1]",
        "data.workers=100000",
        "data.labels=[1, 2]",
        "data.cache=maybe",
        "optimizer.learning_rate=0",
        "optimizer.learning_rate=inf",
        "optimizer.learning_rate=fast",
        "optimizer.epochs=0",
        "optimizer.epochs=1.5",
        "schedule.final_lr_scale=1.5",
        "optimizer.ema_decay=1",
        "loss.ranking_weight=-1",
        "optimizer.precision=fp8",
        "augment.roll_s=-1",
        "augment.gain_db=6",
        "augment.gain_db=[1, 2, 3]",
        "augment.speed=[0, 1]",
        "augment.waveform_mix_probability=1.1",
        "augment.mask_mels=1.5",
        "augment.mask_count=100000",
        "augment.gain_db=[0, 1e300]",
        "augment.speed=[1e-9, 1]",
        "augment.roll_s=1e300",
        "optimizer.epochs=1e15",
        "optimizer.batch_size=1000000000000",
        "evaluation.every_epochs=0",
        "evaluation.keep=first",
        "evaluation.max_false_positive_rate=2",
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(least, override):
    key = override.partition("=")[0]
    assert key in refusal(least, override)


def test_a_calibration_fits_the_task_and_the_folds(least):
    folds = "data.folds=[1, 2]"
    assert load_recipe(
        least, [folds, "evaluation.calibration=platt", "evaluation.threshold_target=recall=0.8"]
    ).evaluation.threshold_target
    message = refusal(least, folds, "evaluation.calibration=temperature")
    assert "evaluation.calibration for task multi_label must be platt or shared or isotonic" in message
    assert "needs evaluation clips" in refusal(least, "evaluation.calibration=platt")
    assert "set evaluation.calibration too" in refusal(least, "evaluation.threshold_target=f1")
    assert "precision=0.9, recall=0.8 or f1" in refusal(
        least, "evaluation.calibration=platt", "evaluation.threshold_target=auc"
    )


@pytest.mark.parametrize("override", ["augment.gain_db=[6, -6]", "augment.speed=[1.2, 0.8]"])
def test_a_range_the_wrong_way_round_is_refused(least, override):
    name = override.partition("=")[0]
    assert f"{name} must be [lowest, highest]" in refusal(least, override)


def test_a_piece_longer_than_the_window_or_shorter_than_a_frame_is_refused(least):
    assert "augment.crop_s must be at most window_s" in refusal(least, "augment.crop_s=99")
    assert "augment.crop_s is shorter than one frame" in refusal(least, "augment.crop_s=0.01")


@pytest.mark.parametrize("key", ["equalize_db", "low_pass_probability"])
def test_what_changes_energies_needs_log_mels_that_are_not_standardised(least, key):
    standardized = 'front_end.standardize="log_mel"'
    assert load_recipe(least, [standardized]).front_end.standardize == "log_mel"
    assert f"augment.{key} does not fit" in refusal(least, standardized, f"augment.{key}=0.5")


def test_short_clips_lie_at_a_random_place_between_silence_only(least):
    assert load_recipe(least, ["augment.random_padding=true"]).augment.random_padding
    needed = 'augment.random_padding needs padding = "zero"'
    assert needed in refusal(least, "augment.random_padding=true", "padding=repeat")


def test_bands_cannot_be_emptied_without_a_floor(least):
    with pytest.raises(RecipeError, match=r"augment\.low_pass_probability needs a front-end with a floor"):
        load_recipe(least, ["augment.low_pass_probability=0.5", "front_end.floor=0.0"])


def test_a_window_of_gigabytes_is_refused(least):
    assert "window_s must be shorter" in refusal(least, "window_s=600", "front_end.hop_length=1")


def test_a_window_shorter_than_a_frame_is_refused(least):
    assert "window_s is shorter than one frame" in refusal(least, "window_s=0.01")


@pytest.mark.parametrize("key", ["name", "window_s", "model", "data", "optimizer", "model.architecture"])
def test_required_keys_are_named(least, key):
    table, _, name = key.rpartition(".")
    lines, inside, section = [], False, ""
    for line in LEAST.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        inside = section == key or (section == table and line.startswith(f"{name} ="))
        lines += [] if inside else [line]
    least.write_text("\n".join(lines))
    assert f"key '{key}' is missing" in refusal(least)


@pytest.mark.parametrize("override", ["optimizer.epochs", "optimizer.epochs.more=1", "=5"])
def test_a_bad_override_is_refused(least, override):
    assert "override" in refusal(least, override)
