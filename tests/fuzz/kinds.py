"""Kinds of files that earmark reads besides recordings: how an intact one is made, changed, and read."""

import hashlib
import io
import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import tomli_w
import toy
from mutations import bytes_changed, json_changed, text_changed
from toy_model import INFO, toy_content, toy_network

RATE = toy.SAMPLE_RATE


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        make: Writes intact files into a folder.
        change: Changes them there.
        read: Reads the files of a folder as a command would.
    """

    make: Callable[[Path], object]
    change: Callable[[Random, Path], object]
    read: Callable[[Path], object]

    def write(self, random: Random, intact: Path, folder: Path) -> None:
        """Writes changed files into a folder; those that they are made of are kept in another."""
        if not intact.exists():
            self.make(intact)
            self.read(intact)
        shutil.copytree(intact, folder)
        self.change(random, folder)


def _changed(random: Random, path: Path, how: Callable[[Random, bytes], bytes]) -> None:
    path.write_bytes(how(random, path.read_bytes()))


def _one_of(*names: str, how: Callable[[Random, bytes], bytes]) -> Callable[[Random, Path], None]:
    return lambda random, folder: _changed(random, folder / random.choice(names), how)


# model files


def _make_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.onnx").write_bytes(toy_content())


def _change_model(random: Random, folder: Path) -> None:
    from earmark.model_file.onnx_file import attach_info

    path, graph = folder / "a.onnx", (Path(__file__).parents[1] / "golden" / "toy.onnx").read_bytes()
    kind = random.randrange(5)
    if kind == 0:
        _changed(random, path, bytes_changed)
    elif kind < 3:
        path.write_bytes(attach_info(bytes_changed(random, graph), INFO))
    else:
        text = json_changed(random, INFO.to_json())
        info: Any = SimpleNamespace(to_json=lambda: SimpleNamespace(encode=lambda: text))
        path.write_bytes(attach_info(graph, info))


def _noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)


def _read_model(folder: Path) -> None:
    import earmark

    tagger = earmark.load(folder / "a.onnx", threads=1)
    json.loads(json.dumps(tagger.tag(_noise(), RATE).to_dict(), allow_nan=False))


# checkpoints of earmark


def _make_checkpoint(folder: Path) -> None:
    from earmark.models.checkpoint import save_checkpoint

    save_checkpoint(folder / "a.safetensors", toy_network(), INFO)


def _change_checkpoint(random: Random, folder: Path) -> None:
    """Of its bytes; or of its header or record, with a hash that fits."""
    path = folder / "a.safetensors"
    content = path.read_bytes()
    if random.random() < 0.2:
        return _changed(random, path, bytes_changed)
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header["__metadata__"]
    if random.random() < 0.6:
        text = json_changed(random, metadata["earmark.record"])
        metadata["earmark.record"] = text.decode("utf-8", "replace")
        tensors = sorted(name for name in header if name != "__metadata__")
        digest = hashlib.sha256(metadata["earmark.record"].encode("utf-8", "replace"))
        for name in tensors:
            first, last = header[name]["data_offsets"]
            digest.update(name.encode() + data[first:last])
        metadata["earmark.sha256"] = digest.hexdigest()
        encoded = json.dumps(header).encode()
    else:
        encoded = json_changed(random, json.dumps(header))
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return None


def _read_checkpoint(folder: Path) -> None:
    import earmark

    earmark.load(folder / "a.safetensors").tag(_noise(), RATE)


# weights to convert


def _make_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    state = toy_network().state_dict()
    torch.save({"net": state, "epoch": 3}, folder / "a.pt")
    torch.save(state, folder / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "c.safetensors")


def _change_weights(random: Random, folder: Path) -> None:
    import torch

    kept = random.choice(("a.pt", "b.pt", "c.safetensors"))
    for path in folder.iterdir():
        if path.name != kept:
            path.unlink()
    path, kind = folder / kept, random.randrange(4)
    if kind == 0 and kept == "a.pt":
        _pickle_changed(random, path)
    elif kind == 1 and kept == "a.pt":
        state = torch.load(path, weights_only=True)
        name = random.choice(list(state["net"]))
        own = state["net"][name]
        odd = (
            own.to(torch.complex64),
            own.to("meta"),
            own.to_sparse(),
            own.to(torch.float8_e4m3fn),
            own.double() * 1e300,
            own * torch.nan,
            own[None],
            own.bool(),
            own.float().expand(3, *own.shape),
        )
        state["net"][name] = random.choice(odd)
        torch.save(state, path)
    else:
        _changed(random, path, bytes_changed)


def _pickle_changed(random: Random, path: Path) -> None:
    """Changes the pickle within the archive, whose checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = bytes_changed(random, content)
            changed.writestr(entry.filename, content)
    path.write_bytes(out.getvalue())


def _read_weights(folder: Path) -> None:
    from earmark.models.weights import build_with_weights, read_state_dict

    path = min(folder.iterdir())
    build_with_weights(INFO.architecture, INFO.arguments, len(INFO.labels), read_state_dict(path))


# packs


def _make_pack(form: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from earmark.data.manifest import read_manifest
        from earmark.data.shards.writer import PackOptions, pack

        table = toy.write_clips(folder.with_name(f"{folder.name} clips"), clips_per_fold=2, quiet=1)
        pack(read_manifest(table), folder, PackOptions(form, sample_rate=RATE, shard_clips=3))  # type: ignore[arg-type]

    return make


def _change_pack(random: Random, folder: Path) -> None:
    path = random.choice([path for path in sorted(folder.iterdir()) if path.suffix in _OF_PACKS])
    _changed(random, path, _OF_PACKS[path.suffix])


_OF_PACKS = {
    ".json": json_changed,
    ".csv": text_changed,
    ".tar": bytes_changed,
    ".npy": bytes_changed,
    ".hdf": bytes_changed,
}


def _read_pack(folder: Path) -> None:
    """Reads all clips; those that are damaged are left out, as in a training."""
    from earmark.data.read_clip import read_clip, read_piece
    from earmark.data.shards.pack import load_pack
    from earmark.errors import AudioError, EarmarkError

    first: EarmarkError | None = None
    for clip in load_pack(folder)[1]:
        try:
            read_clip(clip, RATE)
            read_piece(clip, RATE, 1000, lambda excess: excess // 2)
        except AudioError as error:
            first = first or error
    if first:
        raise first


# stored predictions and their indexes


def _make_predictions(folder: Path) -> None:
    from earmark.training.distill.stored_predictions import PredictionsHeader, serialize

    folder.mkdir()
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    header = PredictionsHeader(
        ("dog", "rain"), "logits", "multi_label", ({"name": "big", "sha256": "0" * 64},)
    )
    (folder / "a.npz").write_bytes(serialize(header, ["a", "b", "c", "d"], values))
    np.save(folder / "b.npy", values.astype(np.float16))
    rows = {name: number for number, name in enumerate("abcd")}
    (folder / "i.json").write_text(json.dumps(rows))
    (folder / "i.csv").write_text("name,row\n" + "".join(f"{name},{row}\n" for name, row in rows.items()))
    (folder / "i.pkl").write_bytes(__import__("pickle").dumps(rows))
    (folder / "labels.txt").write_text("dog\nrain\n")


def _change_predictions(random: Random, folder: Path) -> None:
    name = random.choice(("a.npz", "a.npz", "b.npy", "i.json", "i.csv", "i.pkl"))
    for other in ("a.npz", "b.npy") if name.startswith("i.") else ("a.npz" if name == "b.npy" else "b.npy",):
        if other != "b.npy" or name == "a.npz":
            (folder / other).unlink()
    for index in ("i.json", "i.csv", "i.pkl"):
        if name.startswith("i.") and index != name:
            (folder / index).unlink()
    if name == "a.npz" and random.random() < 0.6:
        _npz_changed(random, folder / name)
    else:
        how = {".json": json_changed, ".csv": text_changed}.get(Path(name).suffix, bytes_changed)
        _changed(random, folder / name, how)


def _npz_changed(random: Random, path: Path) -> None:
    """Changes an array within the archive, whose checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as changed:
        entries = archive.infolist()
        chosen = random.choice(entries)
        for entry in entries:
            content = archive.read(entry)
            if entry is chosen:
                content = bytes_changed(random, content)
                if random.random() < 0.5:  # in the header, where types and shapes are
                    content = bytes_changed(random, content[:128]) + content[128:]
            changed.writestr(entry.filename, content)
    path.write_bytes(out.getvalue())


def _read_predictions(folder: Path) -> None:
    from earmark.training.distill.stored_predictions import StoredPredictions

    if (folder / "a.npz").exists():
        stored = StoredPredictions(folder / "a.npz")
    else:
        index = min(folder.glob("i.*"))
        stored = StoredPredictions(folder / "b.npy", index=index, labels=str(folder / "labels.txt"))
    stored.read(stored.find(["a", "b", "c", "d", "e"]))


# tables and recipes


def _make_manifest(folder: Path) -> None:
    folder.mkdir()
    rows = ["path,labels,fold,unknown,member,labelled,id,título"]
    rows += [
        f'clip {n}.wav,"dog;rain, heavy",{n % 3},wind,,{"no" if n == 3 else ""},clip{n},ö' for n in range(6)
    ]
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _read_manifest(folder: Path) -> None:
    from earmark.data.manifest import clips_hash, label_set, read_manifest, targets

    clips = read_manifest(folder / "clips.csv")
    targets(clips, label_set(clips))
    clips_hash(clips)


def _make_labels(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text("dog\nrain, heavy\nTür\n", encoding="utf-8")
    (folder / "b.csv").write_text(
        'index,mid,display_name\n0,/m/0,dog\n1,/m/1,"rain, heavy"\n', encoding="utf-8"
    )


def _read_labels(folder: Path) -> None:
    from earmark.errors import EarmarkError
    from earmark.model_file.labels import read_labels

    errors = []
    for path in sorted(folder.iterdir()):
        try:
            read_labels(path)
        except EarmarkError as error:
            errors.append(error)
    if errors:
        raise errors[0]


_RECIPES = (
    "esc50/mn10",
    "audioset/mn04",
    "fsd50k/mn10",
    "esc18/taught_mn01",
    "audioset/convnext_tiny_leaf",
    "tau2020/cnn6_60k",
)


def _make_recipes(folder: Path) -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    for name in _RECIPES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recipes / f"{name}.toml", folder / f"{name}.toml")
        for other in (recipes / name).parent.glob("*.toml"):  # that it may extend
            shutil.copy(other, (folder / name).parent)


def _change_recipe(random: Random, folder: Path) -> None:
    name = random.choice(_RECIPES)
    _changed(random, folder / f"{name}.toml", random.choice((text_changed, _values_changed)))
    (folder / "changed").write_text(name)


def _values_changed(random: Random, content: bytes) -> bytes:
    """Changes values of TOML, as far as TOML has them."""
    while True:
        try:
            changed = json.loads(json_changed(random, json.dumps(tomllib.loads(content.decode()))))
            return tomli_w.dumps(changed).encode()
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue


def _read_recipe(folder: Path) -> None:
    from earmark.models.registry import create_config
    from earmark.training.config.recipe import load_recipe
    from earmark.training.config.toml import to_toml

    named = folder / "changed"
    recipe = load_recipe(folder / f"{named.read_text() if named.exists() else _RECIPES[0]}.toml")
    to_toml(recipe)
    create_config(recipe.model.architecture, num_classes=2, **recipe.model.arguments)


KINDS = {
    "model": Kind(_make_model, _change_model, _read_model),
    "checkpoint": Kind(_make_checkpoint, _change_checkpoint, _read_checkpoint),
    "weights": Kind(_make_weights, _change_weights, _read_weights),
    "shards": Kind(_make_pack("shards"), _change_pack, _read_pack),
    "memmap": Kind(_make_pack("memmap"), _change_pack, _read_pack),
    "hdf5": Kind(_make_pack("hdf5"), _change_pack, _read_pack),
    "predictions": Kind(_make_predictions, _change_predictions, _read_predictions),
    "manifest": Kind(_make_manifest, _one_of("clips.csv", how=text_changed), _read_manifest),
    "labels": Kind(_make_labels, _one_of("a.txt", "b.csv", how=text_changed), _read_labels),
    "recipe": Kind(_make_recipes, _change_recipe, _read_recipe),
}
