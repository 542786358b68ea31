"""Every recipe that ships is trained to a model file that tags, on toy data in the layout of its corpora.

PyTorch's exporter takes longer than everything else: most model files get a graph of two layers, and the
network itself tags from its checkpoint. The networks' own graphs are held by tests/models and tests/export.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import corpora_toys
import numpy as np
import pytest
from onnx import TensorProto, helper

from earmark.hub.predictions import published_predictions
from earmark.hub.registry import published
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info, read_info
from earmark.models import create_model
from earmark.models.onnx_graph import input_shape
from earmark.training import initialization
from earmark.training import run as training_run
from earmark.training.config.data import ClipSource
from earmark.training.config.recipe import Recipe, load_recipe
from earmark.training.config.section import fold_name

ROOT = Path(__file__).parents[2]
RECIPES = {
    path.relative_to(ROOT / "recipes").as_posix(): path for path in sorted((ROOT / "recipes").rglob("*.toml"))
}
SLOW = set(RECIPES) - {"esc50/mn10.toml", "fsdkaggle2018/resnetish18.toml", "tau2020/cnn6_60k.toml"}
"""All but one of each family of networks."""
EXPORTED = {"audioset/mn01_tiny.toml", "openmic/mn10.toml"}
"""Those whose networks are exported: one of fixed length, one with unknown labels."""
QUICK = ("optimizer.batch_size=8", "optimizer.grad_accum_steps=1", "optimizer.epochs=1", "data.workers=0")


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
def place(tmp_path, monkeypatch, corpus, run) -> Callable[[Recipe], None]:
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
        if (recipe.model.init_from or "").startswith("runs/"):
            pretrain(Path(recipe.model.init_from).parts[1])

    def pretrain(name: str) -> None:
        [path] = [path for path in RECIPES.values() if load_recipe(path).name == name]
        place(load_recipe(path))
        chosen = [part for override in quick(path) for part in ("--set", override)]
        code, _, err = run("train", path, *chosen, "--device", "cpu")
        assert code == 0, err

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


def write_small_graph(network, info: ModelInfo, path: Path) -> float:
    """In the place of the export: a graph that takes the mean of its input."""
    rank = 1 + len(input_shape(info.front_end, 16_000))
    shape = ["batch", *map(str, range(1, rank))]
    sizes = {"logits": len(info.labels), "embedding": info.embedding_size}
    axes = helper.make_tensor("axes", TensorProto.INT64, [rank - 1], range(1, rank))
    nodes = [helper.make_node("ReduceMean", [info.graph_input, "axes"], ["mean"], keepdims=0)]
    nodes.append(helper.make_node("Unsqueeze", ["mean", "one"], ["column"]))
    constants = [axes, helper.make_tensor("one", TensorProto.INT64, [1], [1])]
    for name, size in sizes.items():
        constants.append(helper.make_tensor(f"{name}_row", TensorProto.FLOAT, [1, size], [1.0] * size))
        nodes.append(helper.make_node("Mul", ["column", f"{name}_row"], [name]))
    given = helper.make_tensor_value_info(info.graph_input, TensorProto.FLOAT, shape)
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in sizes.items()
    ]
    graph = helper.make_graph(nodes, "small", [given], outputs, constants)
    opset = helper.make_opsetid("", 20)
    content = helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    path.write_bytes(attach_info(content, info))
    return 0.0


def quick(path: Path) -> list[str]:
    """Overrides for one run of one epoch, and windows of no more than 1 s."""
    recipe = load_recipe(path)
    folds = [f"data.folds=[{recipe.data.folds[0]}]"] if recipe.data.folds else []
    crop = ["augment.crop_s=0.5"] if recipe.augment.crop_s else []
    return [*QUICK, *folds, *crop, f"window_s={min(1.0, recipe.window_s)}"]


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
def test_an_epoch_yields_a_model_that_tags(path, place, run, tmp_path, monkeypatch):
    if path.relative_to(ROOT / "recipes").as_posix() not in EXPORTED:
        monkeypatch.setattr(training_run, "export_model", write_small_graph)
    overrides = quick(path)
    recipe = load_recipe(path, overrides)
    place(recipe)
    chosen = [part for override in overrides for part in ("--set", override)]
    code, out, err = run("train", path, *chosen, "--output", "run", "--device", "cpu")
    assert (code, out) == (0, ""), err
    [line] = (tmp_path / "run").glob("*/log.jsonl").__next__().read_text().splitlines()
    facts = json.loads(line)
    assert facts["loss"] > 0
    metric = "map_macro" if recipe.contrastive is None else "contrastive_accuracy"
    assert facts.keys() >= ({metric} if recipe.data.folds else set())
    model = tmp_path / "run" / f"{recipe.name}.onnx"
    assert read_info(model).card.startswith(f"# {recipe.name}\n")
    sound = corpora_toys.write_clip(tmp_path / "sound.wav", sample_rate=recipe.front_end.sample_rate)
    for file in (model, *(tmp_path / "run").glob("*/last.safetensors")):
        code, out, err = run("tag", sound, "--model", file, "--top", 10_000, "-f", "json")
        assert (code, err) == (0, ""), file
        scores = [tag["score"] for tag in json.loads(out)[0]["tags"]]
        assert len(scores) == len(read_info(model).labels)
        assert all(0 <= score <= 1 for score in scores)
    shutil.rmtree("run")  # up to 2 GB
