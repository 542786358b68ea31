"""What is not known of clips that are mixed."""

import numpy as np
import torch

from earmark.training.batch import mixable_labels, mixed_labels

NAN = np.nan
TARGETS = torch.tensor([[1.0, NAN], [NAN, 1.0], [NAN, NAN], [0.0, 1.0]])


def mixed(shares, partners):
    share = torch.tensor(shares)[:, None]
    rows = mixable_labels(TARGETS)
    assert rows.isfinite().all()
    return mixed_labels(share * rows + (1 - share) * rows[partners])


def test_unmixed_it_is_what_it_was():
    np.testing.assert_array_equal(mixed_labels(mixable_labels(TARGETS)), TARGETS)
    np.testing.assert_array_equal(mixed([1.0, 1.0, 1.0, 1.0], [2, 2, 0, 2]), TARGETS)


def test_a_label_unknown_in_one_clip_counts_as_absent_there():
    np.testing.assert_allclose(mixed([0.75] * 4, [1, 3, 2, 0])[:2], [[0.75, 0.25], [0, 1]])


def test_a_label_unknown_in_both_stays_unknown():
    np.testing.assert_allclose(mixed([0.75] * 4, [0, 1, 2, 3]), [[1, NAN], [NAN, 1], [NAN, NAN], [0, 1]])


def test_an_unlabelled_clip_stays_unlabelled_in_mixtures():
    np.testing.assert_array_equal(mixed([0.75] * 4, [2, 2, 3, 2]), np.full((4, 2), NAN))
