"""Log-mels in a graph equal those of the references and of NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from front_end_cases import CASES, golden, kept_frames

from earmark.export.waveform import FoldedLogMel, waveform_info
from earmark.features.front_end import FrontEnd
from earmark.features.learned import LEAF, GraphFrontEnd
from earmark.features.log_mel import LogMel
from earmark.features.presets import AUDAX, EFFICIENTAT, FSDKAGGLE, SP4ASC
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.models.onnx_graph import module_to_onnx


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_it_equals_the_references(name):
    case = CASES[name]
    log_mel = FoldedLogMel(case.front_end)(torch.from_numpy(case.clip())[None])[0].numpy()
    case.assert_close(log_mel[:, kept_frames(log_mel.shape[1])], golden(name))


ODD = replace(EFFICIENTAT, sample_rate=8000, n_fft=256, win_length=201, hop_length=90, n_mels=20, f_max=3500)
SHAPES = {
    "efficientat": EFFICIENTAT,
    "sp4asc": SP4ASC,
    "fsdkaggle": replace(FSDKAGGLE, floor=1e-6),
    "audax": AUDAX,
    "an odd window": ODD,
    "an odd window at the start": replace(ODD, window_placement="start"),
    "gaps between windows": replace(ODD, hop_length=256, win_length=200),
    "magnitudes": replace(ODD, power=1.0),
    "standardized": replace(ODD, standardize=True),
    "a standardized log-mel": replace(ODD, standardize="log_mel"),
    "empty bands": replace(ODD, n_mels=120, preemphasis=0),
}


@torch.no_grad()
@pytest.mark.parametrize("front_end", SHAPES.values(), ids=SHAPES)
def test_it_equals_numpy_at_any_length(front_end: FrontEnd):
    random = np.random.default_rng(0)
    folded, log_mel = FoldedLogMel(front_end), LogMel(front_end)
    hop = front_end.hop_length
    for samples in (0, 1, hop - 1, hop, 5 * hop + 7):
        clips = (0.3 * random.standard_normal((2, front_end.min_samples + samples))).astype(np.float32)
        got, wanted = folded(torch.from_numpy(clips)).numpy(), log_mel(clips)
        assert got.shape == wanted.shape
        assert got.dtype == np.float32
        assert np.abs(got - wanted).max() <= 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, "log_mel"])
def test_silence_is_finite_in_a_graph_that_standardizes(standardize):
    """The exporter takes a sum with a tiny number for one with zero."""
    front_end = replace(ODD, standardize=standardize)
    axes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=front_end.min_samples)},)
    names = ["waveform"], ["log_mel"]
    graph = module_to_onnx(FoldedLogMel(front_end), (torch.zeros(2, 9000),), axes, names, 18)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    clips = np.stack([np.zeros(4000), np.random.default_rng(0).standard_normal(4000)]).astype(np.float32)
    [found] = session.run(None, {"waveform": clips})
    np.testing.assert_allclose(found, LogMel(front_end)(clips), atol=2e-3)


def test_the_model_info_names_the_log_mel_in_the_graph(info):
    changed = waveform_info(info)
    assert changed.front_end == GraphFrontEnd(info.front_end)
    assert waveform_info(changed) == changed
    assert waveform_info(info.changed(front_end=LEAF)).front_end == LEAF
