"""Every recipe that ships loads and takes two steps, on toy data in the layout of its own corpora."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import corpora_toys
import numpy as np
import pytest

from earmark.hub.predictions import published_predictions
from earmark.hub.registry import published
from earmark.models import create_model
from earmark.training import initialization
from earmark.training.config.data import ClipSource
from earmark.training.config.recipe import Recipe, load_recipe
from earmark.training.config.section import fold_name
from earmark.training.splits import split_clips
from earmark.training.trainer import train_network as train

ROOT = Path(__file__).parents[2]
RECIPES = {
    path.relative_to(ROOT / "recipes").as_posix(): path for path in sorted((ROOT / "recipes").rglob("*.toml"))
}
SLOW = set(RECIPES) - {"esc50/mn10.toml", "fsdkaggle2018/resnetish18.toml", "tau2020/cnn6_60k.toml"}
"""All but one of each family of networks: two steps of every recipe take half a minute."""
QUICK = ("optimizer.batch_size=2", "optimizer.grad_accum_steps=1", "data.workers=0")


class EnoughError(Exception):
    pass


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Callable[[str], Path]:
    """A toy copy of a corpus, made once."""
    made: dict[str, Path] = {}

    def corpus(name: str) -> Path:
        if name.endswith("_hdf5"):
            pytest.importorskip("h5py")
        if name == "images":
            pytest.importorskip("PIL")
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            getattr(corpora_toys, f"make_{name}")(made[name])
        return made[name]

    return corpus


@pytest.fixture
def place(tmp_path, monkeypatch, corpus) -> Callable[[Recipe], None]:
    """Puts all that a recipe names into the folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(initialization, "load_network", random_weights)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")

    def place(recipe: Recipe) -> None:
        for source in recipe.data.sources:
            if source.corpus is None:
                write_esc18(source)
            elif source.folder is not None and not source.folder.exists():
                source.folder.parent.mkdir(parents=True, exist_ok=True)
                source.folder.symlink_to(corpus(source.corpus))
        for teacher in recipe.teacher:
            place_teacher(Path(teacher.path[0].replace("{fold}", fold_name(recipe.runs[0]))))

    return place


def random_weights(name: str):
    """In the place of published weights: those of a fresh network, so that nothing is fetched."""
    known = published()[name]
    network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments)
    return network.eval(), known.model_info(embedding_size=960)


def write_esc18(source: ClipSource) -> None:
    """Manifests with a clip of each of 18 labels."""
    for path in source.manifests:
        rows = [("path", "labels", "fold", "license")]
        for number in range(18):
            corpora_toys.write_clip(path.parent / f"{number}.wav", number)
            rows.append((f"{number}.wav", f"sound {number}", 1 + number % 4, "CC0"))
        corpora_toys.write_table(path, rows)


def place_teacher(path: Path) -> None:
    index = "fname_to_index.pkl"
    if known := published_predictions().get(str(path)):
        path, index = known.folder / known.table.name, known.index.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tflite":
        pytest.importorskip("ai_edge_litert")
        yamnet = ROOT.parent / "shared" / "teachers" / path.name
        if not yamnet.is_file():
            pytest.skip("YAMNet's file is not committed")
        shutil.copy(yamnet, path)
        return
    ids = corpora_toys.YOUTUBE_IDS
    np.save(path, np.random.default_rng(0).normal(size=(len(ids), 527)).astype(np.float16))
    with (path.parent / index).open("wb") as file:
        pickle.dump({name: index for index, name in enumerate(ids)}, file)


def quick(path: Path) -> Recipe:
    """A recipe for batches of two, and windows of no more than 2 s."""
    window_s = min(2.0, load_recipe(path).window_s)
    return load_recipe(path, [*QUICK, f"window_s={window_s}"])


def test_they_are_all_here():
    assert len(RECIPES) >= 32
    assert len(SLOW) == len(RECIPES) - 3


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name.removesuffix(".toml"), marks=pytest.mark.slow if name in SLOW else ())
        for name, path in RECIPES.items()
    ],
)
def test_it_takes_two_steps(path, place, tmp_path):
    recipe = quick(path)
    place(recipe)
    fold = recipe.data.folds[0] if recipe.data.folds else None
    split = split_clips(recipe, fold)
    assert bool(split.evaluated) == (fold is not None)
    losses = []

    def report(facts):
        losses.append(facts["loss"])
        if len(losses) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        train(recipe, tmp_path / "run", fold, report)
    assert np.isfinite(losses).all()
    assert min(losses) > 0
