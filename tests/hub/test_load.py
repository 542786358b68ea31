"""From a published name to tags: downloaded, checked, put into a graph, run."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from published_case import SOUNDS, make_weights, sha256, write_table
from web import serving, whole

import earmark
from earmark.errors import ModelError
from earmark.hub import download, registry
from earmark.hub import pull as pull_module
from earmark.hub.download import RetryPolicy
from earmark.hub.pretrained import load_network
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.weights import replace_head

TRUSTED = {"labels": "audioset", "params": 123_783}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_weights(tmp_path_factory.mktemp("made") / "made.pt")


@pytest.fixture
def web(content):
    with serving() as server:
        server.body = content
        yield server


@pytest.fixture(autouse=True)
def table(web, content, tmp_path, monkeypatch) -> Path:
    """What the server publishes, instead of the table that ships."""
    known = {"labels": "audioset", "size": len(content), "sha256": sha256(content)}
    path = write_table(
        tmp_path / "published.toml",
        web.url,
        trusted=TRUSTED,
        known=known,
        prefix=TRUSTED | {"sha256": sha256(content)[:8]},
        start={},
        other_size=known | {"size": 1000},
        other_hash=known | {"sha256": 64 * "0"},
        other_classes={"num_classes": 1000, "architecture": "mn10"},
        other_network=TRUSTED | {"architecture": "mn02"},
        unknown_network=TRUSTED | {"architecture": "mn99"},
    )
    monkeypatch.setattr(registry, "_TABLE", path)
    monkeypatch.setattr(download, "RETRY", RetryPolicy(timeout_s=10, attempts=2, pause_s=0.001))
    return path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_whole_way(web, content, own_cache, tmp_path):
    calls = []
    tagger = earmark.load("known", progress=lambda *numbers: calls.append(numbers))
    assert calls[-1] == (len(content), len(content))
    assert left(own_cache) == {"known.onnx", "known.safetensors", "known.origin.json"}

    network, info = load_checkpoint(own_cache / "known.safetensors")
    assert tagger.info == info
    assert info.labels == SOUNDS.labels
    assert info.front_end == SOUNDS.front_end
    assert info.embedding_size == 96
    assert info.provenance == {
        "url": f"{web.url}/known.pt",
        "size": len(content),
        "sha256": sha256(content),
    }
    published = torch.load(_written(tmp_path, content), weights_only=True)["net"]
    assert all(torch.equal(tensor, published[name]) for name, tensor in network.state_dict().items())

    waveform = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    with torch.no_grad():
        logits = network(TorchLogMel(info.front_end).eval()(torch.from_numpy(waveform)[None])).logits
    scores = tagger.tag(waveform, 32000).scores
    np.testing.assert_allclose(scores, logits.sigmoid()[0].numpy(), atol=1e-4)

    web.behaviours = [whole]
    count = len(web.requests)
    assert earmark.load("known").info == earmark.load(own_cache / "known.onnx").info == info
    assert pull_module.pull("known") == own_cache / "known.onnx"
    assert len(web.requests) == count, "what is in the cache is not downloaded again"


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "brought.pt"
    path.write_bytes(content)
    return path


def test_a_local_file_is_checked_and_kept(web, content, own_cache, tmp_path):
    path = _written(tmp_path, content)
    assert pull_module.pull("known", file=path) == own_cache / "known.onnx"
    assert path.exists()
    assert web.requests == []
    path.write_bytes(content + b"\0")
    with pytest.raises(ModelError, match=rf"brought\.pt: size must be \d+ bytes, got {len(content) + 1}"):
        pull_module.pull("known", file=path)
    with pytest.raises(ModelError, match=r"none\.pt"):
        pull_module.pull("known", file=tmp_path / "none.pt")


def test_a_wrong_size_or_hash_is_refused(web, own_cache):
    for name in ("other_size", "other_hash"):
        with pytest.raises(ModelError):
            pull_module.pull(name)
    assert left(own_cache) == set()


def test_the_first_digits_of_a_hash_suffice(web, content, own_cache):
    pull_module.pull("prefix")
    web.body = b"x" * len(content)
    with pytest.raises(ModelError, match="SHA-256 must start with"):
        pull_module.pull("prefix", force=True)


def test_without_a_known_hash_the_first_file_is_trusted_and_no_other_after(web, content, own_cache, tmp_path):
    pull_module.pull("trusted")
    assert json.loads((own_cache / "trusted.origin.json").read_text())["sha256"] == sha256(content)
    before = (own_cache / "trusted.safetensors").read_bytes()
    web.body = make_weights(tmp_path / "other.pt")[:-1] + b"\0\0"
    with pytest.raises(ModelError, match=r"SHA-256 must be .*remove .*trusted\.origin\.json"):
        pull_module.pull("trusted", force=True)
    with pytest.raises(ModelError):
        pull_module.pull("trusted", file=_written(tmp_path, web.body))
    assert (own_cache / "trusted.safetensors").read_bytes() == before
    web.body = content
    pull_module.pull("trusted", force=True)


def test_a_file_that_could_not_be_converted_is_not_trusted(web, content, own_cache):
    web.body = content[:-100]
    with pytest.raises(ModelError, match="not a valid PyTorch checkpoint"):
        pull_module.pull("trusted")
    assert left(own_cache) == set()
    web.body = content
    pull_module.pull("trusted")


def test_a_malicious_file_is_refused_and_nothing_runs(web, own_cache, tmp_path):
    web.body = pickle.dumps({"net": _Malice(tmp_path / "it_ran")})
    for call in (lambda: pull_module.pull("trusted"), lambda: earmark.load("trusted")):
        with pytest.raises(ModelError, match=r"refused, no code was run|not a valid PyTorch checkpoint"):
            call()
    assert not (tmp_path / "it_ran").exists()
    assert left(own_cache) == set()


class _Malice:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("other_classes", r"other_classes\.pt: the weights do not fit mn10, 1000 .*is missing.* more$"),
        ("other_network", r"other_network\.pt: the weights do not fit mn02, 527 classes.*is missing.* more$"),
    ],
)
def test_weights_of_another_network_are_refused(web, own_cache, name, problem):
    with pytest.raises(ModelError, match=problem):
        pull_module.pull(name)
    assert left(own_cache) == set()


def test_an_unknown_architecture_is_refused_before_the_download(web):
    with pytest.raises(ModelError, match=r"unknown_network: .*mn99"):
        pull_module.pull("unknown_network")
    assert web.requests == []


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnx", "onnxscript", "safetensors")))
import numpy, earmark
from earmark.hub import registry
from earmark.hub.pull import pull
from pathlib import Path
registry._TABLE = Path(sys.argv[1])
print(pull("start", file=sys.argv[2]))
tagger = earmark.load("known")
print(len(tagger.tag(numpy.ones(32000, numpy.float32), 32000).tags))
"""


def test_neither_pytorch_nor_onnx_is_needed(web, content, own_cache, tmp_path, table):
    path = _written(tmp_path, content)
    command = [sys.executable, "-W", "error", "-c", WITHOUT, str(table), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(own_cache / "start.safetensors"), "527"]
    assert len(web.requests) == 1


def test_initial_weights_are_a_checkpoint_only(web, own_cache):
    assert pull_module.pull("start") == own_cache / "start.safetensors"
    assert left(own_cache) == {"start.safetensors", "start.origin.json"}
    with pytest.raises(ModelError):
        earmark.load("start")


def test_a_network_of_published_weights(web, own_cache):
    network, info = load_network("known")
    assert len(web.requests) == 1
    assert (info.labels, info.front_end) == (SOUNDS.labels, SOUNDS.front_end)
    assert load_network("start")[1].front_end == SOUNDS.front_end
    for name, tensor in load_network(own_cache / "known.safetensors")[0].state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
    published = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fresh = replace_head(network, 3)
    assert fresh(torch.zeros(2, 128, 26)).logits.shape == (2, 3)
    kept = {name for name, tensor in fresh.state_dict().items() if tensor.shape == published[name].shape}
    assert set(published) - kept == {"classifier.5.weight", "classifier.5.bias"}
    assert all(torch.equal(fresh.state_dict()[name], published[name]) for name in kept)


@pytest.mark.parametrize("model", [registry.DEFAULT, "unknown", "none.safetensors"])
def test_what_has_no_weights_is_refused(model):
    with pytest.raises(ModelError):
        load_network(model)


def test_what_ships_need_not_be_downloaded(web):
    assert pull_module.pull(registry.DEFAULT) == registry.find()
    assert web.requests == []
    with pytest.raises(ModelError, match="did you mean known"):
        pull_module.pull("knwon")


def test_a_run_killed_before_the_conversion_needs_no_second_download(web, own_cache, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("earmark.hub.checkpoint.read_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            pull_module.pull("known")
    assert not registry.published_model("known").is_cached
    pull_module.pull("known")
    assert len(web.requests) == 1


def test_an_error_page_is_refused(web, own_cache):
    web.body = b"<!DOCTYPE html><html><body>Sign in to this network</body></html>"
    for name, problem in (("known", "must have"), ("trusted", "is not a PyTorch checkpoint.*DOCTYPE")):
        with pytest.raises(ModelError, match=problem):
            pull_module.pull(name)
    assert left(own_cache) == set()


def test_without_a_network_the_way_by_hand_is_named(web, own_cache):
    web.server_close()
    with pytest.raises(
        ModelError, match=r"cannot be downloaded.*earmark pull known --from known\.pt"
    ) as caught:
        earmark.load("known")
    assert str(own_cache) in str(caught.value)
    assert "\n" not in str(caught.value)
