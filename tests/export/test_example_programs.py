"""The programs of examples/ need nothing but the model file, and print the tags of earmark."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy

import earmark
from earmark.export.export import export
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource
from earmark.model_file.calibration import Isotonic, Platt, Temperature
from earmark.model_file.onnx_file import read_model_file, replace_info

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "plain": {},
    "platt": {"calibration": Platt((0.5, 2.0), (0.1, -1.0))},
    "isotonic": {"calibration": Isotonic(((-1.0, 0.0, 2.0), (0.0,)), ((0.1, 0.4, 0.9), (0.3,)))},
    "softmax": {"task": "single_label"},
    "temperature": {"task": "single_label", "calibration": Temperature(2.0), "padding": "zero"},
}


@pytest.fixture(scope="module")
def files(exported, info, tmp_path_factory) -> dict[str, Path]:
    """Model files that take waveforms, one of each kind of score."""
    folder = tmp_path_factory.mktemp("deployed")
    source = ExportSource(info, content=exported[1].read_bytes())
    made = export(source, folder / "plain.onnx", ExportOptions(waveform=True))
    content, own = read_model_file(made.files[0])
    paths = {kind: folder / f"{kind}.onnx" for kind in KINDS}
    for kind, changes in KINDS.items():
        paths[kind].write_bytes(replace_info(content, own.changed(**changes)))
    return paths


@pytest.fixture(scope="module")
def javascript(tmp_path_factory) -> list[str]:
    """The command that runs the program in Node."""
    node = shutil.which("node")
    modules = Path(os.environ.get("EARMARK_NODE_MODULES", ROOT / "node_modules"))
    if node is None or not (modules / "onnxruntime-web").is_dir():
        pytest.skip("needs Node, and onnxruntime-web in node_modules or $EARMARK_NODE_MODULES")
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "node_modules").symlink_to(modules)
    shutil.copy(ROOT / "examples" / "tag.mjs", folder)
    return [node, str(folder / "tag.mjs")]


@pytest.fixture(scope="module")
def cpp(tmp_path_factory) -> list[str]:
    """The command that runs the program, compiled."""
    compiler, flags = shutil.which("g++"), os.environ.get("EARMARK_CPP_FLAGS")
    if compiler is None or flags is None:
        pytest.skip("needs g++, and in $EARMARK_CPP_FLAGS where the headers and ONNX Runtime are")
    folder = tmp_path_factory.mktemp("cpp")
    source, program = ROOT / "examples" / "tag.cpp", folder / "tag"
    command = [compiler, "-std=c++17", source, "-o", program, *flags.split(), "-lonnxruntime"]
    subprocess.run(command, check=True)
    return [str(program)]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["javascript", "cpp"])
def test_a_program_prints_the_tags_of_earmark(request, files, tmp_path, language):
    command = request.getfixturevalue(language)
    random = np.random.default_rng(0)
    for seconds, subtype, channels in ((0.3, "PCM_16", 1), (1.3, "FLOAT", 2)):
        path = tmp_path / f"{seconds}.wav"
        clip = 0.2 * random.standard_normal((round(seconds * toy.SAMPLE_RATE), channels))
        soundfile.write(path, clip, toy.SAMPLE_RATE, subtype)
        for model in files.values():
            done = subprocess.run([*command, model, path], capture_output=True, text=True, check=True)
            printed = [line.split(" ") for line in done.stdout.splitlines()]
            tags = earmark.load(model).tag(path).tags
            assert [label for _, label in printed] == [tag.label for tag in tags]
            assert [float(score) for score, _ in printed] == pytest.approx([t.score for t in tags], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["javascript", "cpp"])
def test_a_program_refuses_other_models_and_rates(request, files, toy_model, tmp_path, language):
    command = request.getfixturevalue(language)
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "b.wav", np.zeros(8000), 16000)
    for model, path, problem in (
        (toy_model, "a.wav", "export the model with --waveform"),
        (files["plain"], "b.wav", "sample rate must be 8000 Hz"),
    ):
        done = subprocess.run([*command, model, tmp_path / path], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert problem in done.stderr
