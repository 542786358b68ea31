"""A tagger in other processes: forked children, pickles, spawned workers."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import earmark
from earmark.errors import ModelError

RATE = 8000
SOUND = (0.2 * np.random.default_rng(0).standard_normal(6000)).astype(np.float32)


def scores(tagger: earmark.Tagger) -> np.ndarray:
    return tagger.tag(SOUND, RATE).scores


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pickle_holds_the_path_and_the_options(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int
) -> None:
    monkeypatch.chdir(toy_model.parent)
    tagger = earmark.load(toy_model.name, threads=threads)
    stored = pickle.dumps(tagger)
    assert len(stored) < 5000 < toy_model.stat().st_size
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(stored)
    assert again.info == tagger.info
    np.testing.assert_array_equal(scores(again), scores(tagger))
    assert pickle.dumps(again) == stored


def test_names_ensembles_and_uncalibrated_taggers_too(toy_model: Path) -> None:
    shipped = pickle.dumps(earmark.load())
    assert os.fsencode(Path(earmark.__file__).parent) not in shipped
    assert pickle.loads(shipped).labels == earmark.load().labels
    for tagger in (earmark.load([toy_model, toy_model], threads=1), earmark.load(threads=1).uncalibrated()):
        again = pickle.loads(pickle.dumps(tagger))
        assert again.info == tagger.info
        np.testing.assert_array_equal(scores(again), scores(tagger))


def test_what_cannot_be_pickled_is_one_line(
    toy_model: Path, toy_single_label_model: Path, tmp_path: Path
) -> None:
    tagger = earmark.load(toy_model, threads=1)

    class Own:
        run = tagger.session.run

    with pytest.raises(ModelError, match="the tagger of toy cannot be pickled"):
        pickle.dumps(tagger.with_session(Own()))
    copied = tmp_path / "copy.onnx"
    copied.write_bytes(toy_model.read_bytes())
    stored = pickle.dumps(earmark.load(copied, threads=1))
    copied.write_bytes(toy_single_label_model.read_bytes())
    with pytest.raises(ModelError, match=r"copy\.onnx: has changed since"):
        pickle.loads(stored)


def test_a_spawned_process_gets_a_tagger(toy_model: Path) -> None:
    tagger = earmark.load(toy_model, threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(scores, (tagger,)), scores(tagger))


FORK = """
import os, sys
sys.path.insert(0, {tests!r})
import numpy as np, earmark
from test_processes import scores
used, unused = (earmark.load({model!r}, {options}) for _ in range(2))
expected = scores(used)
child = os.fork()
same = np.abs(scores(used) - expected).max() < 1e-6
if not child:
    sys.exit(0 if same else 1)  # frees everything, as a program that ends does
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code or not same)
"""


def fork_and_tag(model: Path, options: str) -> None:
    program = FORK.format(tests=str(Path(__file__).parent), model=str(model), options=options)
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_tags_and_ends(toy_model: Path, threads: int) -> None:
    fork_and_tag(toy_model, f"threads={threads}")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_so_does_one_with_openvino(toy_model: Path) -> None:
    pytest.importorskip("openvino")
    fork_and_tag(toy_model, "engine='openvino', threads=2")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_so_does_one_with_a_checkpoint(toy_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from toy_model import INFO, toy_network

    from earmark.models.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "toy.safetensors", toy_network(), INFO)
    fork_and_tag(tmp_path / "toy.safetensors", "")
    tagger = earmark.load(tmp_path / "toy.safetensors")
    np.testing.assert_array_equal(scores(pickle.loads(pickle.dumps(tagger))), scores(tagger))


@pytest.mark.parametrize("threads", [0, 2000])
def test_numbers_of_threads_are_bounded(toy_model: Path, threads: int) -> None:
    with pytest.raises(ModelError, match=f"threads must be between 1 and 512, got {threads}"):
        earmark.load(toy_model, threads=threads)


@pytest.mark.parametrize("hop_s", [1e15, float("inf"), float("nan")])
def test_hops_are_bounded(toy_model: Path, hop_s: float) -> None:
    with pytest.raises(ModelError, match="hop_s must be between"):
        earmark.load(toy_model, threads=1).tag(SOUND, RATE, hop_s=hop_s)
