from pathlib import Path

import pytest
import toy

from earmark.training.config.recipe import Recipe
from earmark.training.cross_validation import CrossValidation, cross_validate


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two folds of tones and noises, and a few clips of neither."""
    return toy.write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def cv_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe that learns its task within seconds."""
    folder = tmp_path_factory.mktemp("evaluated")
    return toy.toy_recipe(
        toy.write_clips(folder / "clips", clips_per_fold=24, quiet=6),
        data={
            "sources": [
                {
                    "manifests": [str(folder / "clips" / "clips.csv")],
                    "train_filter": {"license": ["CC0", "CC-BY"]},
                }
            ]
        },
        seed=1,
        model={"arguments": {"n_mels": 16, "dropout": 0.0}},
        front_end={"n_mels": 16},
        augment={"mixup_alpha": 0, "mask_mels": 0, "roll_s": 0, "gain_db": [0, 0], "f_max_range": 0},
        optimizer={
            "epochs": 14,
            "learning_rate": 3e-3,
            "batch_size": 6,
            "ema_decay": 0.8,
        },
        schedule={"final_lr_scale": 0.01},
        evaluation={
            "every_epochs": 100,
            "negative_manifests": [str(toy.write_quiet(folder / "quiet"))],
            "max_false_positive_rate": 0.1,
        },
    )


@pytest.fixture(scope="session")
def cv_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def cross_validated(cv_recipe: Recipe, cv_folder: Path) -> CrossValidation:
    return cross_validate(cv_recipe, cv_folder)
