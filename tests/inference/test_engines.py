"""Engines and devices: the same scores from the same file, errors where one is not available."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import toy

import earmark
from earmark.errors import MissingExtraError, ModelError
from earmark.hub import registry
from earmark.inference import engines
from earmark.inference.load import open_session
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "siren_and_bell.ogg"
F32, BF16 = 1e-4, 0.03
"""How far scores may lie from ONNX Runtime's, as in docs/engines.md."""


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino", reason="earmark[openvino] is not installed")


@pytest.fixture
def model() -> Path:
    """The default model: to use what ships takes a second, to export something half a minute."""
    return registry.find()


def given(seed: int, batch: int = 1, frames: int = 40, n_mels: int = 128) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"log_mel": generator.standard_normal((batch, n_mels, frames)).astype(np.float32)}


def ask(session: object, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(session.run(["logits", "embedding"], inputs))


@pytest.mark.usefixtures("openvino")
def test_openvino_agrees_with_onnx_runtime_at_every_shape(model: Path) -> None:
    reference, session = (open_session(model, 1, engine)[0] for engine in engines.PRECISIONS)
    shapes = [(1, 40), (3, 26), (1, 51), (2, 33), (1, 40)]
    assert len(set(shapes)) > engines.MAX_FIXED_SHAPES + 1, "some of them share the open one"
    for number, shape in enumerate(shapes):
        inputs = given(number, *shape)
        for ours, theirs in zip(ask(session, inputs), ask(reference, inputs), strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=F32 * max(1, np.abs(theirs).max()))


@pytest.mark.usefixtures("openvino")
def test_outputs_are_copies(model: Path) -> None:
    session = open_session(model, 1, "openvino")[0]
    logits = session.run(["logits"], given(0))[0]
    before = logits.copy()
    assert np.abs(session.run(["logits"], given(1))[0] - before).max() > 1e-2, "these two differ"
    np.testing.assert_array_equal(logits, before)


@pytest.mark.usefixtures("openvino")
def test_threads_may_share_a_session(model: Path) -> None:
    session = open_session(model, 1, "openvino")[0]
    wanted = [session.run(["logits"], given(seed))[0] for seed in range(4)]
    wrong = []

    def work(seed: int) -> None:
        for _ in range(30):
            if not np.array_equal(session.run(["logits"], given(seed))[0], wanted[seed]):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_scores_of_the_default_model_stay_within_the_documented_tolerance(precision: str) -> None:
    if precision not in engines.installed_engines()["openvino"]:
        pytest.skip(f"this processor does not compute in {precision}")
    wanted = earmark.load(threads=1).tag(EXAMPLE)
    found = earmark.load(threads=1, engine="openvino", precision=precision).tag(EXAMPLE)
    difference, stated = np.abs(found.scores - wanted.scores).max(), F32 if precision == "fp32" else BF16
    assert difference <= stated
    assert difference > 0, "another program computed this"
    clear = np.abs(wanted.scores - wanted.thresholds) > stated
    received, received_before = (one.scores >= wanted.thresholds for one in (found, wanted))
    np.testing.assert_array_equal(received[clear], received_before[clear])


@pytest.mark.usefixtures("openvino")
def test_a_precision_changes_the_computation(model: Path) -> None:
    if "bf16" not in engines.installed_engines()["openvino"]:
        pytest.skip("this processor does not compute in bf16")
    inputs = given(0, frames=51)
    exact, rounded = (
        open_session(model, 1, "openvino", precision)[0].run(["logits"], inputs)[0]
        for precision in ("fp32", "bf16")
    )
    assert 1e-4 < np.abs(exact - rounded).max() < 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("architecture", ["dymn04", "cnn6_60k"])
def test_openvino_runs_other_networks(info: ModelInfo, architecture: str, tmp_path: Path) -> None:
    from earmark.export.export import export_model

    arguments = {"n_mels": toy.FRONT_END.n_mels} if architecture == "cnn6_60k" else {}
    own = info.changed(architecture=architecture, arguments=arguments)
    network = toy.lively_network(own)
    with torch.no_grad():
        channels = network(
            torch.from_numpy(given(5, 1, 26, toy.FRONT_END.n_mels)["log_mel"])
        ).embedding.shape[1]
    export_model(network, own.changed(embedding_size=channels), tmp_path / "other.onnx")
    reference, session = (
        open_session(tmp_path / "other.onnx", 1, engine)[0] for engine in engines.PRECISIONS
    )
    for batch in (1, 3):
        for ours, theirs in zip(
            ask(session, given(5, batch, 26, toy.FRONT_END.n_mels)),
            ask(reference, given(5, batch, 26, toy.FRONT_END.n_mels)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=F32 * max(1, np.abs(theirs).max()))


@pytest.mark.usefixtures("openvino")
def test_members_of_an_ensemble_run_in_the_engine(model: Path) -> None:
    alone, both = (  # an ensemble is not calibrated
        earmark.load(name, threads=1, engine="openvino")
        .uncalibrated()
        .tag(np.ones(4000, np.float32) / 9, 8000)
        for name in (model, [model, model])
    )
    np.testing.assert_allclose(both.scores, alone.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tflite"}, "engine must be onnx or openvino, got 'tflite'"),
        ({"precision": "bf16"}, "precision of engine onnx must be fp32, got 'bf16'"),
        (
            {"engine": "openvino", "precision": "int8"},
            "precision of engine openvino must be fp32 or bf16 or fp16, got 'int8'",
        ),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cpu:1"}, "device must be auto, cpu, cuda or cuda:N, got 'cpu:1'"),
        ({"device": "cuda:-1"}, "device must be auto, cpu, cuda or cuda:N, got 'cuda:-1'"),
    ],
)
def test_unknown_options_name_the_allowed_values(model: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        earmark.load(model, **options)
    assert str(caught.value) == message


class FakeRuntime:
    """ONNX Runtime, with or without a CUDA provider, which works or falls back to the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_cuda: bool, works: bool = True) -> None:
        self.asked: list[list[object]] = []
        names = ["CUDAExecutionProvider"] if has_cuda else []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])
        real = onnxruntime.InferenceSession

        def open_session(content: bytes, options: object, providers: list[object]) -> object:
            self.asked.append(providers)
            session = real(content, options, providers=["CPUExecutionProvider"])
            if works:
                used = [one if isinstance(one, str) else one[0] for one in providers]
                session.get_providers = lambda: used
            return session

        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)


def cuda(index: int) -> list[object]:
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "providers"),
    [
        ("cpu", ["CPUExecutionProvider"]),
        ("cuda", cuda(0)),
        ("cuda:0", cuda(0)),
        ("cuda:3", cuda(3)),
        ("auto", cuda(0)),
    ],
)
def test_a_device_is_a_choice_of_providers(
    model: Path, monkeypatch: pytest.MonkeyPatch, device: str, providers: list[object]
) -> None:
    runtime = FakeRuntime(monkeypatch, has_cuda=True)
    earmark.load(model, device=device)
    assert runtime.asked == [providers]


def test_a_gpu_that_is_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(monkeypatch, has_cuda=False)
    with pytest.raises(MissingExtraError, match=r"device cuda:1 .*earmark\[gpu\]"):
        earmark.load(model, device="cuda:1")
    assert runtime.asked == []
    earmark.load(model, device="auto")
    assert runtime.asked == [["CPUExecutionProvider"]]

    FakeRuntime(monkeypatch, has_cuda=True, works=False)
    with pytest.raises(ModelError, match="device cuda is not available"):
        earmark.load(model, device="cuda")
    assert earmark.load(model, device="auto").labels


def test_every_member_of_an_ensemble_runs_on_the_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(monkeypatch, has_cuda=True)
    earmark.load([model, model], device="cuda:1")
    assert runtime.asked == [cuda(1), cuda(1)]


@pytest.mark.usefixtures("openvino")
def test_openvino_runs_on_the_cpu(model: Path) -> None:
    with pytest.raises(ModelError, match="engine openvino runs on the CPU: device must be cpu, got cuda"):
        earmark.load(model, engine="openvino", device="cuda")
    assert earmark.load(model, engine="openvino", device="auto").labels


def test_a_precision_that_the_processor_lacks_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_supported_precisions", lambda: ("fp32", "bf16"))
    with pytest.raises(ModelError, match=r"does not compute in fp16 .*use fp32 or bf16"):
        earmark.load(model, engine="openvino", precision="fp16")


def test_a_missing_engine_names_its_extra(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    engines._supported_precisions.cache_clear()
    with pytest.raises(MissingExtraError, match=r"engine openvino needs .*earmark\[openvino\]"):
        earmark.load(model, engine="openvino")


@pytest.mark.usefixtures("openvino")
def test_a_damaged_file_is_refused_before_any_engine_opens_it(model: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        earmark.load(tmp_path / "damaged.onnx", engine="openvino")


@pytest.mark.usefixtures("openvino")
def test_a_graph_that_openvino_cannot_read(info: ModelInfo, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="earmark[train] is not installed")
    shapes = {"log_mel": [1, info.front_end.n_mels, None], "logits": [1, 2], "embedding": [1, 96]}
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    node = onnx.helper.make_node("Unknown", ["log_mel"], ["logits", "embedding"], domain="unknown")
    graph = onnx.helper.make_graph([node], "none", ends[:1], ends[1:])
    (tmp_path / "none.onnx").write_bytes(attach_info(onnx.helper.make_model(graph).SerializeToString(), info))
    with pytest.raises(ModelError) as caught:
        earmark.load(tmp_path / "none.onnx", engine="openvino")
    assert str(caught.value).startswith(f"{tmp_path / 'none.onnx'}: OpenVINO cannot run this model (")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("openvino")
def test_openvino_sends_no_telemetry() -> None:
    probe = (
        "import sys; from earmark.inference import engines; engines.installed_engines();"
        "sys.exit('openvino' not in sys.modules or 'openvino_telemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0
