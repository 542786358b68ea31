"""earmark.evaluate: models and datasets in all their forms."""

import csv

import numpy as np
import pytest
import toy

import earmark
from earmark.data.manifest import read_manifest
from earmark.errors import DataError, ModelError
from earmark.evaluation.run import EvaluationOptions, evaluate
from earmark.evaluation.test_time_augmentation import Masking
from earmark.models.checkpoint import save_checkpoint

FEW = EvaluationOptions(limit=2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return toy.write_clips(tmp_path_factory.mktemp("clips"), quiet=0)


@pytest.fixture(scope="module")
def checkpoint(info, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_checkpoint(path, toy.lively_network(info), info)
    return path


def test_forms_of_model_and_dataset(checkpoint, manifest):
    seen = []
    found = evaluate(checkpoint, manifest, options=FEW, progress=lambda *arguments: seen.append(arguments))
    tagger, clips = earmark.load(checkpoint), read_manifest(manifest)
    assert [arguments[:2] for arguments in seen] == [(1, 2), (2, 2)]
    assert found.info == tagger.info
    assert found.origin["manifest"]["path"] == str(manifest)
    other = evaluate(tagger, clips, options=FEW)
    assert other.overall == found.overall
    np.testing.assert_array_equal(other.predictions.scores, found.predictions.scores)
    two = evaluate([checkpoint, str(checkpoint)], str(manifest), options=FEW)
    np.testing.assert_allclose(two.predictions.scores, found.predictions.scores, atol=1e-6)


def test_masking_needs_the_model_file(checkpoint, manifest):
    options = EvaluationOptions(limit=2, masking=Masking(2, frames=9, mels=9))
    found = evaluate(checkpoint, manifest, options=options)
    plain = evaluate(checkpoint, manifest, options=FEW)
    assert not np.allclose(found.predictions.scores, plain.predictions.scores)
    assert found.origin["settings"]["passes"] == 2
    with pytest.raises(ModelError):
        evaluate(earmark.load(checkpoint), manifest, options=options)


def test_a_dataset_without_labels_is_refused(checkpoint, manifest, tmp_path):
    path = tmp_path / "clips.csv"
    with path.open("w", newline="") as stream:
        rows = [(clip.path, "") for clip in read_manifest(manifest)[:2]]
        csv.writer(stream).writerows([("path", "labels"), *rows])
    with pytest.raises(DataError):
        evaluate(checkpoint, path)
    found = evaluate(checkpoint, path, options=EvaluationOptions(allow_unlabelled=True))
    assert found.predictions.scores.shape == (2, 2)
