"""The HEAR interface: the reference's embeddings, and the requirements of HEAR's validator.

The golden networks are those of golden/efficientat/manifests; audio is their synthetic clip and, where a
golden needs a second clip, the recording beside it.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from front_end_cases import chirps_and_clicks

import earmark
from earmark.errors import AudioError, MissingExtraError, ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.learned import LEAF
from earmark.features.presets import EFFICIENTAT
from earmark.inference import load
from earmark.inference.stages import load_stages, with_stages
from earmark.inference.tagger import Tagger
from earmark.integrations import hear
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set
from earmark.models import Network, create_model
from earmark.models.checkpoint import save_checkpoint
from earmark.models.stage_embedding import STAGE_POOLINGS, StageEmbedding
from earmark.models.waveform_network import attach_front_end
from tests.models.golden_weights import build_tensors, read_manifest, settle

BLOCKS = ("b5", "b11", "b13", "b15")
SCENES = {
    "mn10_all_b_mel_avgs": (("mel_avgs", *BLOCKS), "mean"),
    "mn01_all_b_mel_avgs": (("mel_avgs", *BLOCKS), "mean"),
    "mn10_all_se_mel_avgs": (("mel_avgs", "se5", "se11", "se13", "se15"), "mean"),
    "mn10_clf1": (("clf1",), "mean"),
    "mn10_clf2": (("clf2",), "mean"),
    "mn10_logits": (("logits",), "mean"),
    "mn10_b4_5_6_7": (("b4", "b5", "b6", "b7"), "mean"),
    "mn04_all_b_max_ch_pool": (BLOCKS, "max"),
    "mn04_all_b_add_avg_max_ch_pool": (BLOCKS, "mean_plus_max"),
    "mn04_all_b_cat_avg_max_ch_pool": (BLOCKS, "mean_and_max"),
    "mn04_all_b_avg_time_pool": (BLOCKS, "time_mean"),
    "mn04_all_b_avg_max_time_pool": (BLOCKS, "time_mean_plus_max"),
}
TIMES_MS = np.arange(21, dtype=np.float32) * 50


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "efficientat"


@cache
def golden_network(golden: Path, name: str) -> Network:
    network = create_model(name)
    network.load_state_dict(build_tensors(read_manifest(golden, name)["tensors"]))
    return network.eval()


def golden_tagger(golden: Path, name: str, stages: tuple[str, ...] = (), pool: str = "mean") -> Tagger:
    network = golden_network(golden, name)
    info = ModelInfo(
        name=name,
        labels=label_set("audioset"),
        front_end=EFFICIENTAT,
        task="multi_label",
        architecture=name,
        arguments={},
        window_s=10.0,
        padding="repeat",
        embedding_size=1,
    )
    return with_stages(network, info, stages, pool)


@cache
def golden_embeddings(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "hear" / "hear_embeddings.npz") as stored:
        return dict(stored)


def both_clips(golden: Path) -> np.ndarray:
    return np.stack([chirps_and_clicks(), np.load(golden / "audio" / "metro_paris_10s_32k.npy")])


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


def test_every_golden_is_tested(golden: Path) -> None:
    names = {key.split("__")[0] for key in golden_embeddings(golden)}
    assert names == {*SCENES, "mn10_ts1280"}


@pytest.mark.parametrize("name", SCENES)
def test_scenes_as_the_reference(golden: Path, name: str) -> None:
    stages, pool = SCENES[name]
    model = hear.of_tagger(golden_tagger(golden, name[:4], stages, pool))
    wanted = golden_embeddings(golden)[f"{name}__scene_synth10"]
    assert model.scene_embedding_size == model.timestamp_embedding_size == wanted.shape[1]
    assert_close(hear.get_scene_embeddings(chirps_and_clicks()[None], model), wanted)


@pytest.mark.parametrize(
    "name", ["mn01_all_b_mel_avgs", pytest.param("mn10_all_b_mel_avgs", marks=pytest.mark.slow)]
)
def test_a_long_scene_is_the_mean_of_its_windows(golden: Path, name: str) -> None:
    model = hear.of_tagger(golden_tagger(golden, name[:4]))
    audio = both_clips(golden).reshape(1, -1)
    assert_close(hear.get_scene_embeddings(audio, model), golden_embeddings(golden)[f"{name}__scene_cat20"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mn01_all_b_mel_avgs", "mn10_all_b_mel_avgs", "mn10_ts1280"])
def test_timestamps_as_the_reference(golden: Path, name: str) -> None:
    window_s = 1.28 if name == "mn10_ts1280" else 0.16
    model = hear.of_tagger(golden_tagger(golden, name[:4]), timestamp_window_s=window_s)
    audio = both_clips(golden)[:, :32000]
    embeddings, times_ms = hear.get_timestamp_embeddings(audio, model)
    assert_close(embeddings, golden_embeddings(golden)[f"{name}__ts_emb"])
    np.testing.assert_array_equal(times_ms, golden_embeddings(golden)[f"{name}__ts_ms"])


@pytest.fixture(scope="module")
def default_model() -> hear.HearModel:
    return hear.load_model()


@pytest.fixture(scope="module")
def stage_model(info: ModelInfo) -> hear.HearModel:
    torch.manual_seed(0)
    front_end = FrontEnd(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, f_max=7500.0)
    network = settle(create_model("mn01", num_classes=2))
    return hear.of_tagger(with_stages(network, info.changed(front_end=front_end, window_s=10.0)))


def noise(clips: int, seconds: float, sample_rate: int) -> torch.Tensor:
    shape = clips, round(seconds * sample_rate)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("which", ["default_model", "stage_model"])
@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0])
def test_timestamps_are_what_the_validator_asks(
    which: str, seconds: float, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    audio = noise(2, seconds, model.sample_rate)
    embeddings, times_ms = hear.get_timestamp_embeddings(audio, model)
    assert isinstance(embeddings, torch.Tensor)
    assert isinstance(times_ms, torch.Tensor)
    assert embeddings.dtype == times_ms.dtype == torch.float32
    assert embeddings.shape == (2, times_ms.shape[1], model.timestamp_embedding_size)
    assert times_ms.shape[0] == 2
    steps = times_ms.diff(dim=1)
    assert float((steps - steps.mean()).abs().max()) <= 1
    assert float(steps.mean()) <= 50
    assert float(times_ms.max()) <= 1000 * seconds
    assert float(times_ms[:, 0].max()) <= 50
    assert float(times_ms[:, -1].min()) >= 1000 * seconds - 50
    assert embeddings.isfinite().all()
    assert not torch.equal(embeddings[0], embeddings[1])


@pytest.mark.parametrize("which", ["default_model", "stage_model"])
def test_scenes_are_what_the_validator_asks(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    scenes = hear.get_scene_embeddings(noise(4, 2.74, model.sample_rate), model)
    assert scenes.dtype == torch.float32
    assert scenes.shape == (4, model.scene_embedding_size)
    assert scenes.isfinite().all()


def test_rows_do_not_depend_on_their_batch(stage_model: hear.HearModel) -> None:
    audio = noise(3, 12.0, 16000).numpy()
    scenes = hear.get_scene_embeddings(audio, stage_model)
    assert isinstance(scenes, np.ndarray)
    np.testing.assert_allclose(hear.get_scene_embeddings(audio[1:2], stage_model), scenes[1:2], atol=1e-5)


@pytest.mark.parametrize("samples", [1, 100, 2000])
def test_short_clips_have_embeddings(stage_model: hear.HearModel, samples: int) -> None:
    audio = noise(2, samples / 16000, 16000)
    assert hear.get_scene_embeddings(audio, stage_model).isfinite().all()
    embeddings, times_ms = hear.get_timestamp_embeddings(audio, stage_model)
    assert embeddings.isfinite().all()
    assert times_ms.shape[1] == 1 + samples // 800


def test_default_model_agrees_with_the_tagger(default_model: hear.HearModel) -> None:
    tagger = earmark.load()
    rate = tagger.info.front_end.sample_rate
    audio = noise(1, tagger.info.window_s, rate).numpy()
    scene = hear.get_scene_embeddings(audio, default_model)[0]
    np.testing.assert_allclose(scene, tagger.embed(audio[0], rate).clip, atol=1e-5)


def test_without_pytorch_a_model_is_a_plain_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    model = hear.load_model()
    assert not isinstance(model, torch.nn.Module)
    audio = np.zeros((2, model.sample_rate), np.float64)
    assert hear.get_scene_embeddings(audio, model).shape == (2, model.scene_embedding_size)


def test_stages_of_a_checkpoint(info: ModelInfo, exported: tuple[Network, Path], tmp_path: Path) -> None:
    checkpoint = tmp_path / "toy.safetensors"
    save_checkpoint(checkpoint, exported[0], info)
    tagger, usual = load_stages(checkpoint, ["b15", "clf1"]), earmark.load(exported[1])
    waveform = noise(1, 1.2, 8000)[0].numpy()
    found, wanted = tagger.tag(waveform, 8000), usual.tag(waveform, 8000)
    assert tagger.info.embedding_size == found.embedding.size == 16 + info.embedding_size
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.embedding[16:], wanted.embedding, atol=1e-4)
    with pytest.raises(ModelError, match=r"toy\.onnx: inner stages need"):
        load_stages(exported[1])


def test_stages_behind_a_learned_front_end_are_refused(info: ModelInfo) -> None:
    learned = info.changed(front_end=LEAF)
    network = attach_front_end(create_model("mn01", num_classes=2), LEAF).eval()
    with pytest.raises(ModelError):
        with_stages(network, learned)


def test_stages_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("earmark.models")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"earmark\[train\]"):
        load_stages("mn10_as")


@pytest.mark.parametrize(
    ("stages", "pool"),
    [
        (["b17"], "mean"),
        (["se3"], "mean"),
        (["se40"], "mean"),
        (["x"], "mean"),
        ([], "mean"),
        (["b5"], "median"),
    ],
)
def test_unknown_stages(stages: list[str], pool: str) -> None:
    network = create_model("mn01", num_classes=2).eval()
    with pytest.raises(ModelError):
        StageEmbedding(network, stages, pool)(torch.zeros(1, 32, 40))
    assert not any(module._forward_hooks for module in network.modules())


def test_pools_of_a_map_by_hand() -> None:
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    pooled = {name: pool(features).tolist() for name, pool in STAGE_POOLINGS.items()}
    assert pooled == {
        "mean": [[4]],
        "max": [[7]],
        "mean_plus_max": [[11]],
        "mean_and_max": [[4, 7]],
        "time_mean": [[2, 6]],
        "time_mean_plus_max": [[5, 13]],
    }


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(16000, np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((2, 100), np.int16),
        np.full((1, 100), np.nan, np.float32),
    ],
)
def test_unusable_audio(stage_model: hear.HearModel, audio: np.ndarray) -> None:
    for embed in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(AudioError):
            embed(audio, stage_model)


def test_unusable_models(toy_model: Path) -> None:
    with pytest.raises(ModelError, match="must be 16000, 22050, 32000, 44100, 48000 Hz, got 8000"):
        hear.load_model(str(toy_model))
    with pytest.raises(ModelError, match="got object"):
        hear.get_scene_embeddings(np.zeros((1, 16000), np.float32), object())


def test_a_model_runs_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    tagger = earmark.load()
    monkeypatch.setattr(load, "load", lambda model, **options: opened.append((model, options)) or tagger)
    hear.load_model("cnn6_60k_ce", device="cuda:1")
    assert opened == [("cnn6_60k_ce", {"device": "cuda:1"})]
    with pytest.raises(ModelError, match="cuda:1"):
        hear.load_model("mn10_as", device="cuda:1")


def test_a_published_mn_has_the_stages_of_its_authors(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path))
    network = create_model("mn01", num_classes=2).eval()
    published = info.changed(architecture="mn01", arguments={}, front_end=EFFICIENTAT)
    save_checkpoint(tmp_path / "mn01_as.safetensors", network, published)
    widths = [block.block[-1][1].num_features for block in (network.features[b] for b in (5, 11, 13, 15))]
    assert hear.load_model("mn01_as").scene_embedding_size == 128 + sum(widths)
    assert (
        hear.load_model("mn01_as", stages=["b5"], pool="mean_and_max").scene_embedding_size == 2 * widths[0]
    )
