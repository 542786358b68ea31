"""Several models answer as one: by the mean of their logits, each with its own front-end."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from one_line import assert_one_line

import earmark
from earmark.audio import window_chunks
from earmark.errors import ModelError
from earmark.hub import registry
from earmark.inference import load
from earmark.inference.ensemble import JointSession, ensemble_info
from earmark.integrations import hear
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, attach_info

HIGH = replace(toy.FRONT_END, sample_rate=11_025, n_mels=24, hop_length=128, f_max=5000.0)
"""Another rate, whose windows are whole samples at both where they are a multiple of 40 ms."""


def sound(seconds: float, rate: int) -> np.ndarray:
    """Noise and a rising tone, so that no two windows are alike."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.1 * noise).astype(np.float32)


def relabelled(path: Path, target: Path, **changes: object) -> Path:
    """The model file with another record."""
    import onnx

    info, model = read_model_file(path)[1], onnx.load(path)
    del model.metadata_props[:]
    target.write_bytes(attach_info(model.SerializeToString(), info.changed(**changes)))
    return target


@pytest.fixture(scope="module")
def files(info: ModelInfo, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files: "toy", "alike" with its front-end, and "high" with another rate."""
    from earmark.export.export import export_model

    folder = tmp_path_factory.mktemp("members")
    found = {"toy": relabelled(toy_model, folder / "toy.onnx", window_s=0.48)}
    small = info.changed(architecture="cnn6_60k", embedding_size=128, window_s=0.48)
    for name, front_end in {"alike": toy.FRONT_END, "high": HIGH}.items():
        own = small.changed(name=name, front_end=front_end, arguments={"n_mels": front_end.n_mels})
        found[name] = folder / f"{name}.onnx"
        export_model(toy.lively_network(own), own, found[name])
    return found


def together(files: dict[str, Path], *names: str) -> str:
    return "+".join(str(files[name]) for name in names)


def logits_of(result: earmark.Result) -> np.ndarray:
    """Of each window, (window, class)."""
    scores = np.stack([window.scores for window in result.windows]).astype(np.float64)
    return np.log(scores / (1 - scores))


@pytest.mark.parametrize("names", [("toy", "alike"), ("toy", "high"), ("high", "alike", "toy")])
@pytest.mark.parametrize("lengths", [{}, {"window_s": 0.8, "hop_s": 0.12}])
def test_logits_are_the_mean_of_the_members_and_embeddings_stand_end_to_end(
    files, tmp_path, names, lengths
) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, sound(1.8, 44_100), 44_100, subtype="FLOAT")
    apart = [earmark.load(files[name], threads=1).tag(path, **lengths) for name in names]
    result = earmark.load(together(files, *names), threads=1).tag(path, **lengths)
    wanted = np.mean([logits_of(one) for one in apart], 0)
    assert np.std([logits_of(one) for one in apart], 0).mean() > 0.05, "members must differ"
    np.testing.assert_allclose(logits_of(result), wanted, atol=1e-4)
    for number, window in enumerate(result.windows):
        parts = [one.windows[number] for one in apart]
        np.testing.assert_array_equal(window.embedding, np.concatenate([part.embedding for part in parts]))
        assert all((part.start_s, part.end_s) == (window.start_s, window.end_s) for part in parts)
    assert result.model == "+".join(names)
    assert result.duration_s == pytest.approx(1.8)


def test_a_single_label_ensemble_answers_shares(files, tmp_path) -> None:
    single = [
        relabelled(files[name], tmp_path / f"{name}.onnx", task="single_label") for name in ("toy", "alike")
    ]
    scores = earmark.load("+".join(map(str, single))).tag(sound(0.48, 8000), 8000).scores
    apart = [np.log(earmark.load(path).tag(sound(0.48, 8000), 8000).scores) for path in single]
    shares = np.exp(np.mean(apart, 0))
    np.testing.assert_allclose(scores, shares / shares.sum(), atol=1e-5)


@pytest.mark.parametrize("names", [("toy", "high"), ("high", "toy")])
def test_the_end_of_a_window_is_the_same_for_all(files, names) -> None:
    tagger = earmark.load(together(files, *names), threads=1)
    counts = [len(tagger.tag(sound(extra / 44_100 + 0.48, 44_100), 44_100).windows) for extra in range(12)]
    assert counts[0] == 1
    assert counts[-1] == 2
    assert counts == sorted(counts)


def test_windows_and_hops_are_whole_samples_at_every_rate(files) -> None:
    tagger = earmark.load(together(files, "toy", "high"), threads=1)
    starts = [window.start_s for window in tagger.tag(sound(40, 8000), 8000, hop_s=0.13).windows]
    np.testing.assert_allclose(np.diff(starts), 0.12, atol=1e-9)
    with pytest.raises(ModelError, match=r"a hop of 0\.01 s is no step forward: give at least 0\.04"):
        tagger.tag(sound(1, 8000), 8000, hop_s=0.01)


def test_a_recording_is_decoded_once_and_not_held(files, monkeypatch) -> None:
    seen: list[int] = []

    def blocks():
        for number in range(200):
            seen.append(number)
            yield np.full(800, 0.1 + number / 1000, np.float32)

    behind: list[int] = []

    def noted(*arguments):
        for chunk in window_chunks(*arguments):
            behind.append(seen[-1])
            yield chunk

    monkeypatch.setattr("earmark.inference.tagger.window_chunks", noted)
    tagger = earmark.load(together(files, "toy", "high"), threads=1)
    lengths = tagger._lengths(None, None)
    windows, duration_s = tagger._hear(blocks(), 8000, lengths)
    assert (len(windows), duration_s) == (42, 20.0)
    assert seen == list(range(200))
    assert np.abs(np.array(behind[0::2]) - behind[1::2]).max() <= 8, "members hear side by side"


def test_more_than_two_members_and_the_same_twice(files) -> None:
    tagger = earmark.load(together(files, "toy", "toy", "alike"), threads=1)
    apart = [logits_of(earmark.load(files[name]).tag(sound(0.48, 8000), 8000)) for name in ("toy", "alike")]
    got = logits_of(tagger.tag(sound(0.48, 8000), 8000))
    np.testing.assert_allclose(got, (2 * apart[0] + apart[1]) / 3, atol=1e-4)


def test_embeddings_of_chosen_windows(files) -> None:
    tagger = earmark.load(together(files, "toy", "alike"), threads=1)
    waveform = sound(1, tagger.sample_rate)
    apart = [earmark.load(files[name]).embed_windows(waveform, [0, 800], 3840) for name in ("toy", "alike")]
    np.testing.assert_array_equal(tagger.embed_windows(waveform, [0, 800], 3840), np.hstack(apart))
    assert tagger.embed(waveform, 8000).windows.shape[1] == tagger.info.embedding_size
    mixed = earmark.load(together(files, "toy", "high"), threads=1)
    for call in (
        lambda: mixed.embed_windows(waveform, [0], 3840),
        lambda: hear.load_model(together(files, "toy", "high")),
    ):
        with pytest.raises(ModelError, match="hear at 8000 and 11025 Hz"):
            call()


def test_the_record_of_an_ensemble(info) -> None:
    other = info.changed(
        name="other", front_end=HIGH, embedding_size=10, license="CC0", source="a test", card="# other\n"
    )
    joint = ensemble_info([info, other, info])
    assert (joint.name, joint.architecture) == ("toy+other+toy", "ensemble")
    assert joint.front_ends == (toy.FRONT_END, HIGH)
    assert joint.graph_inputs == ("log_mel_0", "log_mel_1")
    assert [member["front_ends"] for member in joint.arguments["members"]] == [[0], [1], [0]]
    assert (joint.embedding_size, joint.threshold) == (2 * 96 + 10, None)
    assert (joint.license, joint.source) == ("MIT; CC0", "a test")
    assert joint.card.count("hört Töne") == 1
    assert "# other" in joint.card
    assert ModelInfo.from_json(joint.to_json()) == joint
    assert ensemble_info([info, info.changed(name="b")], "ab").graph_inputs == ("log_mel",)
    assert ensemble_info([info]) is info


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": ("tone",)}, "they have 2 and 1 labels: take models with the same labels"),
        ({"labels": ("noise", "tone")}, "label 1 is 'tone' of the first, 'noise' of the other"),
        ({"task": "single_label"}, "task is multi_label of the first, single_label of the other"),
        ({"window_s": 5.0}, r"window_s is 0.5 of the first, 5.0 of the other: earmark convert --window"),
        ({"padding": "zero"}, "padding is repeat of the first, zero of the other"),
    ],
)
def test_members_that_do_not_agree_are_refused(info, changes, problem) -> None:
    other = info.changed(name="other", **changes)
    with pytest.raises(ModelError, match=f"toy and other cannot answer together: {problem}"):
        ensemble_info([info, info, other])


@pytest.mark.parametrize(
    ("front_ends", "problem"),
    [([{}], "missing fields"), ([1], "malformed|front-end"), ("x", "malformed|front-end")],
)
def test_further_front_ends_that_are_none_are_refused(info, front_ends, problem) -> None:
    values = json.loads(info.to_json()) | {"further_front_ends": front_ends}
    with pytest.raises(ModelError, match=problem):
        ModelInfo.from_json(json.dumps(values))
    with pytest.raises(ModelError, match="further_front_ends must be a list of front-ends"):
        info.changed(further_front_ends=(1,))


def test_an_ensemble_of_ensembles_takes_each_input_by_its_name(info) -> None:
    """As where a file that holds an ensemble is named together with another model."""

    class Session:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def run(self, names, inputs):
            total = sum((index + 1) * inputs[name] for index, name in enumerate(sorted(inputs)))
            return [self.factor * total, self.factor * total]

    inner = ensemble_info([info.changed(front_end=HIGH), info])
    session = JointSession([Session(1.0), Session(10.0)], [info, inner])
    plain, high = np.ones((1, 2), np.float32), np.full((1, 2), 5, np.float32)
    embedding, logits = session.run(["embedding", "logits"], {"log_mel_0": plain, "log_mel_1": high})
    np.testing.assert_array_equal(embedding, [[1, 1, 70, 70]])
    np.testing.assert_array_equal(logits, [[35.5, 35.5]])


def test_names_with_plus(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b+c.onnx", "a.onnx+b+c.onnx"):
        (tmp_path / name).touch()
    assert registry.members("mn04_as+dymn04_as") == ("mn04_as", "dymn04_as")
    assert registry.members(" mn04_as + b+c.onnx") == ("mn04_as", "b+c.onnx")
    assert registry.members(tmp_path / "b+c.onnx") == (str(tmp_path / "b+c.onnx"),)
    assert registry.members("a.onnx+b+c.onnx") == ("a.onnx+b+c.onnx",)
    assert registry.members("b+c.onnx+a.onnx+mn04_as") == ("b+c.onnx", "a.onnx", "mn04_as")
    assert registry.members("mn04_as") == ("mn04_as",)
    for wrong in ("mn04_as+", "+mn04_as", "c++/missing.onnx", "+"):
        with pytest.raises(ModelError, match="an ensemble is named like a\\+b"):
            registry.members(wrong)


def test_every_published_member_is_fetched_first(monkeypatch) -> None:
    pulled: list[str] = []
    monkeypatch.setattr(load, "pull", lambda name, progress=None: pulled.append(name))
    with pytest.raises(ModelError, match="mn04_as is not on this machine yet"):
        earmark.load("mn04_as+dymn04_as")
    assert pulled == ["mn04_as", "dymn04_as"]
    with pytest.raises(ModelError, match=r"no model named 'mn04_sa': did you mean mn04_as"):
        earmark.load("mn04_esc18+mn04_sa")
    with pytest.raises(ModelError, match="starting point"):
        earmark.load("mn04_esc18+mn04_im")


def test_from_the_command_line(run: Callable, files, tmp_path, monkeypatch) -> None:  # noqa: F811
    model, clip = together(files, "toy", "high"), tmp_path / "clip.wav"
    soundfile.write(clip, sound(1.0, 16_000), 16_000)
    code, out, err = run("tag", clip, "--format", "json", "--model", model, model=False)
    [answer] = json.loads(out)
    assert (code, err, answer["model"]) == (0, "", "toy+high")
    assert [window["start_s"] for window in answer["windows"]] == [0.0, 0.48, 0.96]

    standard_input = io.TextIOWrapper(io.BytesIO(clip.read_bytes()))
    monkeypatch.setattr(sys, "stdin", standard_input)
    _, out, _ = run("tag", "-", "--format", "json", "--model", model, model=False)
    assert json.loads(out)[0]["windows"] == answer["windows"]

    target = tmp_path / "found.npz"
    assert run("embed", clip, "--output", target, "--model", model) == (0, "", "")
    assert np.load(target)["embedding"].shape == (1, 224)
    assert str(np.load(target)["model"]) == "toy+high"

    code, out, _ = run("info", model)
    assert code == 0
    assert out.startswith("toy+high: The mean of the logits of toy and high\n")
    assert out.count("front-end: ") == 2
    code, _, err = run("tag", clip, "--threshold", "auto", "--model", model, model=False)
    assert code == 2
    assert_one_line(err, "toy+high has no threshold of its own")


def test_what_is_odd_about_a_recording_is_said_once(run: Callable, files, tmp_path) -> None:  # noqa: F811
    clip = tmp_path / "cut.wav"
    soundfile.write(clip, sound(1.0, 16_000), 16_000)
    clip.write_bytes(clip.read_bytes()[:-4000])
    code, out, err = run(
        "tag", clip, "--format", "json", "--model", together(files, "toy", "high"), model=False
    )
    assert code == 0
    assert_one_line(err, "warning:")
    assert len(json.loads(out)[0]["warnings"]) == 1


@pytest.mark.parametrize("command", ["tag", "info"])
def test_a_wrong_ensemble_is_one_line(run: Callable, files, tmp_path, command) -> None:  # noqa: F811
    other = relabelled(files["alike"], tmp_path / "other.onnx", name="other", task="single_label")
    clip, wrong = tmp_path / "clip.wav", f"{files['toy']}+{other}"
    soundfile.write(clip, sound(0.5, 8000), 8000)
    arguments = ["info", wrong] if command == "info" else ["tag", clip, "--model", wrong]
    code, out, err = run(*arguments, model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, "toy and other cannot answer together: task is multi_label")


def test_it_needs_no_torch(files) -> None:
    command = (
        "import sys; sys.modules['torch'] = None; import earmark, numpy as np;"
        f"tagger = earmark.load({together(files, 'toy', 'high')!r});"
        "print(len(tagger.tag(np.full(3000, 0.1, np.float32), 8000).tags))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
