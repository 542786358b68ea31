"""``earmark export`` from the command line."""

import numpy as np
import pytest
import soundfile
from one_line import assert_one_line

from earmark.model_file.onnx_file import read_info


def test_it_prints_what_was_compared(run, toy_model, tmp_path):
    soundfile.write(tmp_path / "hum.wav", 0.1 * np.sin(np.arange(8000) / 5), 8000)
    out = tmp_path / "out" / "toy.onnx"
    code, printed, err = run(
        "export",
        toy_model,
        "--out",
        out,
        "--waveform",
        "--seconds",
        0.75,
        "--recording",
        tmp_path / "hum.wav",
    )
    assert (code, err) == (0, "")
    assert printed.startswith("toy takes waveforms at 8000 Hz, resampling not included, of 0.75 s\ncompared")
    for sound in ("siren_and_bell.ogg", "silence", "full scale", "more than fp16 holds", "noise", "hum.wav"):
        assert f"  {sound}  " in printed
    assert f"wrote {out} (" in printed
    assert read_info(out).fixed_window
    assert run("tag", tmp_path / "hum.wav", "--model", out)[0] == 0
    code, _, err = run("tag", tmp_path / "hum.wav", "--model", out, "--window", 0.5)
    assert code == 2
    assert_one_line(err, "takes no others")


WRONG = {
    "a.txt": ((), "an export is named *.onnx"),
    "a.onnx": (("--target", "openvino"), "an export is named *.xml (openvino)"),
    "b.onnx": (("--seconds", "many"), "'many' is neither a number nor dynamic"),
    "c.onnx": (("--seconds", "0"), "a length of 0 s is not possible"),
    "d.onnx": (("--seconds", "nan"), "a length of nan s is not possible"),
    "e.onnx": (("--recording", "nowhere.wav"), "nowhere.wav"),
    "f.pt2": ((), "only its graph is known"),
}


@pytest.mark.parametrize("out", WRONG)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(run, toy_model, tmp_path, out):
    options, problem = WRONG[out]
    code, printed, err = run("export", toy_model, "--out", tmp_path / out, *options)
    assert (code, printed) == (2, "")
    assert_one_line(err, problem)
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_exported(run, toy_model, tmp_path):
    damaged = tmp_path / "damaged.onnx"
    content = bytearray(toy_model.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    for model, problem in {
        damaged: "the model file is damaged",
        f"{toy_model}+{toy_model}": "make it with earmark join first",
        "mn04_im": "mn04_im is a starting point",
        tmp_path / "none.safetensors": "none.safetensors: the checkpoint cannot be read",
    }.items():
        code, printed, err = run("export", model, "--out", tmp_path / "out.onnx")
        assert (code, printed) == (2, "")
        assert_one_line(err, problem)
    assert not (tmp_path / "out.onnx").exists()
