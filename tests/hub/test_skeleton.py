"""Graphs that ship without weights: each, filled, is the network in PyTorch and the golden one.

Untested without ../shared: weights by the goldens' rule, and their outputs; random weights are used instead.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from front_end_cases import chirps_and_clicks
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from onnx_parity import TOLERANCE, largest_difference
from parity import compute, log_mel, relative

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.hub.registry import PublishedModel, published, published_model
from earmark.hub.skeleton import FILE, read_skeleton, skeleton_name
from earmark.models import Network, create_model
from earmark.models.onnx_graph import OUTPUT_NAMES

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "efficientat"
QUICK = {"mn01_as", "cnn6_60k_ce"}
NETWORKS = {skeleton_name(known): known.name for known in reversed(published().values()) if known.labels}
"""Each network that has a graph, with a published name of its weights."""


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def golden_id(known: PublishedModel) -> str | None:
    """The golden network of the same architecture, arguments and front-end, if there is one."""
    if not GOLDEN.is_dir() or known.front_end.to_dict().keys() != FrontEnd().to_dict().keys():
        return None
    if not known.architecture.startswith(("mn", "dymn")):
        return None
    family = "dymn" if known.architecture.startswith("dymn") else "mobilenet"
    network = create_meta(known.architecture, known)
    for name, entry in read_index(GOLDEN).items():
        if entry["family"] != {"mobilenet": "mn"}.get(family, family) or name.endswith("epoch10"):
            continue
        with torch.device("meta"):
            same = create_model(family, **own_arguments(entry["build_kwargs"])).config == network.config
        mel = {part[0]: int(part[1:]) for part in entry["mel"].split("_")}
        front_end = (mel.get("m", 128), mel.get("h", 320))
        if same and front_end == (known.front_end.n_mels, known.front_end.hop_length):
            return name
    return None


def create_meta(architecture: str, known: PublishedModel) -> Network:
    with torch.device("meta"):
        return create_model(architecture, num_classes=known.num_classes, **known.arguments)


def weighted(known: PublishedModel, golden: str | None) -> Network:
    """The network with the golden's weights, or with random ones."""
    network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments)
    if golden is None:
        return settle(network)
    weights = read_index(GOLDEN)[golden]["weights"]
    if not (GOLDEN / "manifests" / f"{weights}.json").exists():
        return settle(network)
    network.load_state_dict(build_tensors(read_manifest(GOLDEN, weights)["tensors"]))
    return network.eval()


def spectrograms(known: PublishedModel) -> Iterator[np.ndarray]:
    """A batch of short ones and a whole clip, of sounds that fit the golden networks' weights."""
    whole = compute(chirps_and_clicks(), known.front_end).numpy()
    yield np.concatenate([whole[:, :, start : start + 33] for start in (0, 50, 100)])
    yield whole


def filled(known: PublishedModel, network: Network) -> onnxruntime.InferenceSession:
    skeleton = read_skeleton(known)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    skeleton.check(tensors)
    return onnxruntime.InferenceSession(skeleton.fill(tensors), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in NETWORKS.values()]
)
@torch.no_grad()
def test_a_filled_graph_is_the_network(name):
    known = published_model(name)
    golden = golden_id(known)
    network = weighted(known, golden)
    session = filled(known, network)
    for given in spectrograms(known):
        assert largest_difference(network, session, given) <= TOLERANCE
        assert network(torch.from_numpy(given)).embedding.std() > 1e-3, "the input must matter"
    if golden is not None and (GOLDEN / "models" / f"{golden}.npz").exists():
        assert_golden(session, golden)


def assert_golden(session: onnxruntime.InferenceSession, golden: str) -> None:
    """Compares logits and embedding of two clips with those of the reference."""
    wanted, mel = np.load(GOLDEN / "models" / f"{golden}.npz"), read_index(GOLDEN)[golden]["mel"]
    for row, clip in enumerate(("synth", "metro")):
        spectrogram, exact = log_mel(GOLDEN, clip, mel)
        outputs = session.run(list(OUTPUT_NAMES), {"log_mel": spectrogram.numpy()})
        for name, output in zip(OUTPUT_NAMES, outputs, strict=True):
            allowed = TOLERANCE if exact else 1e-3
            assert relative(torch.from_numpy(output[0]), wanted[name][row]) <= allowed, f"{clip}, {name}"


@pytest.mark.parametrize("name", ["focal", "mixup"])
@torch.no_grad()
def test_published_weights_of_sp4asc(shared, name):
    safetensors = pytest.importorskip("safetensors.torch")
    known = published_model(f"cnn6_60k_{name}")
    network = create_model(known.architecture, num_classes=known.num_classes).eval()
    network.load_state_dict(safetensors.load_file(shared / "golden" / "sp4asc" / f"{known.name}.safetensors"))
    given = 10 * np.random.default_rng(0).standard_normal((2, known.front_end.n_mels, 101)) - 30
    assert largest_difference(network, filled(known, network), given.astype(np.float32)) <= TOLERANCE


def test_every_published_model_has_its_network():
    for known in published().values():
        skeleton = read_skeleton(known)
        assert bool(skeleton.graph) >= bool(known.labels), known.name
        assert bool(skeleton.initializers) == bool(skeleton.graph), known.name
    assert FILE.stat().st_size <= 500_000


@pytest.mark.parametrize(
    "name", {skeleton_name(known): known.name for known in published().values()}.values()
)
def test_names_and_shapes_are_those_of_the_network(name):
    known = published_model(name)
    state = create_meta(known.architecture, known).state_dict()
    assert read_skeleton(known).tensors == {
        key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for key, tensor in state.items()
    }


def test_no_weights_are_in_the_file():
    onnx = pytest.importorskip("onnx")
    for name in NETWORKS.values():
        skeleton = read_skeleton(published_model(name))
        graph = onnx.ModelProto.FromString(skeleton.graph).graph
        assert skeleton.initializers.keys() <= {tensor.name for tensor in graph.initializer}
        kept = [tensor for tensor in graph.initializer if tensor.name not in skeleton.initializers]
        assert sum(len(tensor.raw_data) for tensor in kept) < 10_000, "constants of the formula only"


@pytest.fixture
def scenes() -> tuple[PublishedModel, dict[str, np.ndarray]]:
    known = published_model("cnn6_60k_ce")
    network = settle(create_model(known.architecture, num_classes=known.num_classes))
    return known, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def test_the_graph_stays_a_valid_model(scenes):
    """Initializers lie in the graph's own field, for parsers that do not merge a repeated one."""
    onnx = pytest.importorskip("onnx")
    known, tensors = scenes
    skeleton = read_skeleton(known)
    content = skeleton.fill(tensors)
    model = onnx.ModelProto.FromString(content)
    onnx.checker.check_model(model, full_check=True)
    assert (
        model.SerializeToString() == onnx.ModelProto.FromString(model.SerializeToString()).SerializeToString()
    )
    made = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(made["fc2.weight"], tensors["fc2.weight"])
    before = onnx.ModelProto.FromString(skeleton.graph)
    assert [node.name for node in model.graph.node] == [node.name for node in before.graph.node]
    assert model.opset_import == before.opset_import


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop("fc2.bias"), r"fc2\.bias is missing"),
        (lambda t: t.update(more=np.zeros(1)), "more is unexpected"),
        (lambda t: t.update({"fc2.bias": np.zeros(11, np.float32)}), r"shape \(11,\) instead of \(10,\)"),
        (lambda t: t.update({"fc2.weight": t["fc2.weight"].T.copy()}), r"fc2\.weight has shape"),
        (lambda t: t.update({"fc2.bias": np.zeros(10)}), "type float64 instead of float32"),
        (lambda t: t.update({"fc2.bias": np.zeros(10, np.float16)}), "type float16 instead of float32"),
        (lambda t: t.update({"bn0.num_batches_tracked": np.zeros((), np.float32)}), "instead of int64"),
        (lambda t: t.update({"fc2.bias": np.full(10, np.inf, np.float32)}), r"fc2\.bias is not finite"),
        (lambda t: t.clear(), "and 38 more"),
        (lambda t: t.update({"a\nb\x1b[31m": np.zeros(1)}), r"a\\nb\\x1b\[31m is unexpected"),
        (lambda t: t.update({"a" * 1000: np.zeros(1)}), r"a{200}\.\.\.$"),
    ],
)
def test_weights_that_do_not_fit_are_refused(scenes, change, problem):
    known, tensors = scenes
    change(tensors)
    with pytest.raises(ModelError, match=problem) as caught:
        read_skeleton(known).check(tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "value"), [("running_var", -1.0), ("running_var", -1e30), ("weight", 3e38)])
def test_a_norm_that_cannot_be_folded_is_refused(scenes, part, value):
    known, tensors = scenes
    tensors[f"conv2.bn.{part}"] = np.full(128, value, np.float32)
    tensors["conv2.bn.running_mean"] = np.full(128, 100, np.float32)
    skeleton = read_skeleton(known)
    skeleton.check(tensors)
    with pytest.raises(ModelError, match=r"conv2\.bn cannot be folded"):
        skeleton.fill(tensors)
