"""``earmark pull``, ``convert`` and ``models``: published and foreign weights from the command line."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from one_line import assert_one_line
from published_case import SCENES, SOUNDS, make_weights, sha256, write_table
from web import error, serving

from earmark.hub import download, registry
from earmark.hub.download import RetryPolicy
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set
from earmark.models import architectures
from earmark.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def published_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "sounds.pt"
    make_weights(path)
    return path


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that was not published."""
    path = tmp_path_factory.mktemp("made") / "ckpt.pth"
    make_weights(path, SCENES)
    return path


@pytest.fixture
def web(published_weights, tmp_path, monkeypatch):
    """A server with weights, and a table that lists them."""
    content = published_weights.read_bytes()
    known = {
        "labels": "audioset",
        "size": len(content),
        "sha256": sha256(content),
        "macs": 18_147_487,
        "scores": {"mAP": 0.3},
    }
    with serving() as server:
        server.body = content
        table = write_table(tmp_path / "published.toml", server.url, sounds=known, start={})
        monkeypatch.setattr(registry, "_TABLE", table)
        monkeypatch.setattr(download, "RETRY", RetryPolicy(timeout_s=10, attempts=2, pause_s=0.001))
        yield server


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(6000), 8000)
    return path


def test_pull_then_tag(run, web, own_cache, clip):
    assert run("pull", "sounds") == (0, f"{own_cache / 'sounds.onnx'}\n", "")
    code, out, _ = run("tag", clip, "--model", "sounds", "--format", "json", "--top", 1)
    [found] = json.loads(out)
    assert code == 0
    assert found["model"] == "sounds"
    assert found["tags"][0]["label"] in SOUNDS.labels
    _, out, _ = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["sounds"]["path"] == str(own_cache / "sounds.onnx")
    assert rows["sounds"]["megabytes"] == pytest.approx(
        (own_cache / "sounds.onnx").stat().st_size / 1e6, abs=0.05
    )
    assert rows["start"]["path"] is None
    assert rows[registry.DEFAULT]["default"]
    _, out, _ = run("models")
    assert "* sounds " in out
    assert "  start " in out
    _, out, _ = run("info", "sounds")
    assert f"SHA-256 {sha256(web.body)}" in out


def test_the_first_use_fetches_a_model_without_a_question(run, web, own_cache, clip):
    code, out, err = run("tag", clip, "--model", "sounds", "--format", "csv")
    assert (code, err) == (0, ""), "nothing is shown where there is no terminal"
    assert out.count("\n") > 5
    assert (own_cache / "sounds.onnx").is_file()


def test_a_terminal_shows_how_much_has_arrived(run, web, own_cache, clip, monkeypatch):
    for name, options, shown in (("sounds", [], True), ("start", ["--quiet"], False)):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        code, out, err = run("pull", name, *options)
        assert (code, out) == (0, f"{own_cache / (name + ('.onnx' if shown else '.safetensors'))}\n")
        assert ("100" in err or "kB" in err) == shown, err


def test_models_say_what_is_here_and_what_it_costs(run, web, own_cache):
    def line(name: str) -> str:
        return next(line for line in run("models")[1].splitlines() if line[2:].startswith(f"{name} "))

    assert line("sounds").split() == ["sounds", "527", "audioset", "0.6", "MB", "fast", "mAP", "0.3"]
    assert line("start").split() == ["start", "none"], "nothing is known about it"
    run("pull", "sounds")
    assert line("sounds").startswith("* sounds")
    row = next(row for row in json.loads(run("models", "--json")[1]) if row["name"] == "sounds")
    assert (row["speed"], row["download_megabytes"]) == ("fast", pytest.approx(len(web.body) / 1e6, abs=0.05))


@pytest.mark.parametrize(
    ("macs", "speed"),
    [(0.2e9, "fast"), (0.21e9, "medium"), (0.7e9, "medium"), (2.5e9, "slow"), (8e9, "very slow"), (None, "")],
)
def test_speed_follows_from_the_multiply_accumulates(macs, speed):
    assert replace(registry.published_model("mn10_as"), macs=macs).speed == speed


def test_the_published_mn04_as(run, shared, own_cache, tmp_path, monkeypatch):
    """The real file through a server; the scores are those of the reference's code."""
    file = shared / "teachers" / "mn04_as_mAP_432.pt"
    if not file.is_file():
        pytest.skip("the published file is not beside the project")
    table = registry._TABLE.read_text(encoding="utf-8")
    with serving() as server:
        server.body = file.read_bytes()
        address = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
        (tmp_path / "registry.toml").write_text(table.replace(address, f"{server.url}/"), encoding="utf-8")
        monkeypatch.setattr(registry, "_TABLE", tmp_path / "registry.toml")
        assert run("pull", "mn04_as") == (0, f"{own_cache / 'mn04_as.onnx'}\n", "")
        assert [path for path, _ in server.requests] == ["/mn04_as_mAP_432.pt"]
    assert json.loads(run("info", "mn04_as", "--json")[1])["provenance"]["sha256"].startswith(
        "899a8c6217063f69"
    )
    require_scores_of_the_reference(run, shared, "mn04_as")


@pytest.mark.slow
def test_the_published_mn04_as_by_convert(run, shared, tmp_path):
    """The same weights through PyTorch."""
    file = shared / "teachers" / "mn04_as_mAP_432.pt"
    if not file.is_file():
        pytest.skip("the published file is not beside the project")
    arguments = (file, "--architecture", "mn04", "--labels", "audioset", "--output", tmp_path / "mn04.onnx")
    assert run("convert", *arguments)[0] == 0
    require_scores_of_the_reference(run, shared, tmp_path / "mn04.onnx")


def require_scores_of_the_reference(run, shared, model):
    """Compares scores with those that the reference's code printed."""
    clip = shared / "data" / "demo" / "metro_station-paris.wav"
    _, out, _ = run("tag", clip, "--model", model, "--format", "json", "--top", 6)
    found = {tag["label"]: tag["score"] for tag in json.loads(out)[0]["tags"]}
    assert found == {
        "Train": pytest.approx(0.727, abs=1e-3),
        "Rail transport": pytest.approx(0.578, abs=1e-3),
        "Railroad car, train wagon": pytest.approx(0.560, abs=1e-3),
        "Subway, metro, underground": pytest.approx(0.493, abs=1e-3),
        "Vehicle": pytest.approx(0.240, abs=1e-3),
        "Clickety-clack": pytest.approx(0.153, abs=1e-3),
    }


def test_pull_from_a_file(run, web, own_cache, published_weights, tmp_path):
    assert run("pull", "start", "--from", published_weights) == (
        0,
        f"{own_cache / 'start.safetensors'}\n",
        "",
    )
    assert web.requests == []
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    code, out, err = run("pull", "sounds", "--from", tmp_path / "other.pt")
    assert (code, out) == (2, "")
    assert_one_line(err, "other.pt")


def test_a_server_that_fails_is_one_line(run, web, clip):
    web.behaviours = [error(404)]
    for arguments in (("pull", "sounds"), ("tag", clip, "--model", "sounds")):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert_one_line(err, "sounds.pt", "404")


def test_initial_weights_cannot_tag(run, web, clip):
    code, out, err = run("tag", clip, "--model", "start")
    assert (code, out) == (2, "")
    assert_one_line(err, "start")
    assert web.requests == []


ARGUMENTS = ("--architecture", "mn01", "--labels", "tau_scenes", "--window", "0.5")
FRONT_END = [f"{key}={getattr(SCENES.front_end, key)}" for key in ("sample_rate", "n_fft", "win_length")]
FRONT_END += [f"{key}={getattr(SCENES.front_end, key)}" for key in ("hop_length", "n_mels", "f_max")]
OPTIONS = [word for pair in FRONT_END for word in ("--front-end-argument", pair)]


@pytest.fixture
def written(monkeypatch) -> list[ModelInfo]:
    """The model infos that would be exported, since that takes seconds."""
    infos: list[ModelInfo] = []
    monkeypatch.setattr(
        "earmark.hub.build.network_to_onnx",
        lambda network, info: infos.append(info) or SimpleNamespace(SerializeToString=bytes),
    )
    monkeypatch.setattr("earmark.hub.build._difference", lambda network, content, info: 0.0)
    return infos


def test_convert_any_checkpoint(run, own_weights, tmp_path, written):
    out_path = tmp_path / "out" / "own.onnx"
    code, out, err = run(
        "convert", own_weights, *ARGUMENTS, *OPTIONS, "--license", "CC0", "--output", out_path
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(out_path), str(out_path.with_suffix(".safetensors"))]
    [info] = written
    assert (info.name, info.labels, info.task) == ("own", label_set("tau_scenes"), "single_label")
    assert (info.front_end, info.window_s, info.license) == (SCENES.front_end, 0.5, "CC0")
    assert info.padding == "zero"
    network, kept = load_checkpoint(out_path.with_suffix(".safetensors"))
    assert kept == info
    given = torch.load(own_weights, weights_only=True)["net"]
    assert all(torch.equal(given[name], tensor) for name, tensor in network.state_dict().items())


def test_the_padding_of_a_converted_model_is_chosen(run, own_weights, tmp_path, written):
    options = [*ARGUMENTS, *OPTIONS, "--padding", "repeat", "--output", tmp_path / "own.onnx"]
    assert run("convert", own_weights, *options)[0] == 0
    assert written[0].padding == "repeat"


KNOWN = ["--architecture", "mn01", "--labels", "tau_scenes"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--architecture", "mn02", "--labels", "tau_scenes"],
        ["--architecture", "mn1", "--labels", "tau_scenes"],
        ["--architecture", "mn01", "--labels", "audioset"],
        ["--architecture", "mn01", "--labels", "tau_scnes"],
        ["--architecture", "mn01"],
        ["--architecture", "mn01", "--argument", "num_classes=10"],
        ["--architecture", "mobilenet", "--labels", "tau_scenes"],
        [*KNOWN, "--argument", "num_classes=11"],
        [*KNOWN, "--argument", "wings=2"],
        [*KNOWN, "--argument", "wings"],
        [*KNOWN, "--front-end", "eficientat"],
        [*KNOWN, "--front-end-argument", "n_mel=3"],
        [*KNOWN, "--task", "guess"],
        [*KNOWN, "--padding", "mirror"],
    ],
)
def test_a_wrong_conversion_is_one_line_and_writes_nothing(run, own_weights, tmp_path, arguments):
    code, out, err = run("convert", own_weights, *arguments, "--output", tmp_path / "own.onnx")
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert list(tmp_path.iterdir()) == []


def spoilt(state: dict, values: torch.Tensor, name: str = "classifier.5.bias") -> dict:
    return {**state, name: values}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: spoilt(state, torch.full((10,), torch.inf)),
        lambda state: spoilt(state, torch.zeros(10, dtype=torch.complex64)),
        lambda state: spoilt(state, torch.zeros(10).to_sparse()),
        lambda state: spoilt(state, torch.zeros(10, device="meta")),
        pytest.param(  # finite, but its outputs are not, which only the exported graph shows
            lambda state: spoilt(state, -torch.ones(8), "features.0.1.running_var"), marks=pytest.mark.slow
        ),
    ],
    ids=["infinite", "complex", "sparse", "meta", "variance"],
)
def test_weights_that_cannot_be_used_replace_nothing(run, own_weights, tmp_path, spoil):
    state = torch.load(own_weights, weights_only=True)["net"]
    torch.save(spoil(state), tmp_path / "spoilt.pt")
    files = [tmp_path / "own.onnx", tmp_path / "own.safetensors"]
    for file in files:
        file.write_bytes(b"good")
    code, out, err = run("convert", tmp_path / "spoilt.pt", *ARGUMENTS, *OPTIONS, "--output", files[0])
    assert (code, out) == (2, "")
    assert_one_line(err, "spoilt.pt")
    assert [file.read_bytes() for file in files] == [b"good", b"good"]


def test_labels_come_from_a_file(run, own_weights, tmp_path, written):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"söund {number}\n" for number in range(10)), encoding="utf-8")
    options = ["--task", "multi_label", "--front-end", "efficientat", "--output", tmp_path / "own.onnx"]
    code, _, err = run("convert", own_weights, "--architecture", "mn01", "--labels", labels, *options)
    assert (code, err) == (0, "")
    assert written[0].labels == tuple(f"söund {number}" for number in range(10))
    assert (written[0].task, written[0].front_end.hop_length) == ("multi_label", 320)
    code, _, _ = run(
        "convert", own_weights, "--architecture", "mn01", "--argument", "num_classes=10", *options
    )
    assert code == 0
    assert written[1].labels[9] == "output 9"


@pytest.mark.slow
def test_a_converted_model_tags_a_scene(run, shared, tmp_path):
    if "cnn6_60k" not in architectures():
        pytest.skip("the network cnn6_60k is not registered")
    given, model = shared / "golden" / "sp4asc" / "cnn6_60k_mixup.safetensors", tmp_path / "scenes.onnx"
    code, _, err = run(
        "convert", given, "--architecture", "cnn6_60k", "--labels", "tau_scenes", "--output", model
    )
    assert (code, err) == (0, "")
    clip = shared / "data" / "demo" / "metro_station-paris.wav"
    _, out, _ = run("tag", clip, "--model", model, "--format", "json")
    best = json.loads(out)[0]["tags"][0]
    assert best["label"] == "metro_station"
    assert best["score"] == pytest.approx(0.956, abs=0.01)


def test_models_are_plotted(run, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra plot")
    for name, start in (("models.png", b"\x89PNG"), ("models.svg", b"<?xml")):
        assert run("models", "--plot", tmp_path / name) == (0, "", "")
        assert (tmp_path / name).read_bytes().startswith(start)
    drawn = (tmp_path / "models.svg").read_text(encoding="utf-8")
    assert "<!-- dymn20_as -->" in drawn
    assert "<!-- mn10_im -->" not in drawn
    assert drawn.count("<!-- audax_convnext_tiny -->") == 3
    assert drawn.count("<!-- audax_efficientnet_b0_leaf -->") == 1
    assert "<!-- peak memory of feature maps" in drawn
    code, _, err = run("models", "--plot", tmp_path / "models.bmp")
    assert code == 2
    assert_one_line(err, "models.bmp", ".svg")


def test_without_matplotlib_the_extra_is_named(run, tmp_path, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("earmark.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("models", "--plot", tmp_path / "models.png")
    assert code == 2
    assert_one_line(err, "pip install 'earmark[plot]'")


def test_info_prints_card_and_model_info(run, toy_model):
    code, out, _ = run("info", toy_model)
    assert code == 0
    assert "hört Töne" in out
    _, out, _ = run("info", toy_model, "--json")
    assert json.loads(out)["labels"] == ["tone", "noise"]


def test_the_default_model(run):
    code, out, _ = run("models", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out) if row["default"]] == [registry.DEFAULT]
    assert run("info", "--json") == run("info", registry.DEFAULT, "--json")
