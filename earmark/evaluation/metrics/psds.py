"""The polyphonic sound detection score: how well events are found at every operating point.

Source: Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, arXiv:1910.08440; golden
events.json.

Conventions: as for :mod:`earmark.evaluation.metrics.events`; rates are per hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from earmark.errors import DataError
from earmark.evaluation.metrics.events import Floats, Recordings, spans

_HOUR_S = 3600.0


@dataclass(frozen=True)
class PsdsOptions:
    """Parameters of the score; the defaults are those of DCASE's scenario 1, which asks for exact times.

    Args:
        detection_tolerance: Share of a detection that must overlap true events of its class, else it is a
            false positive (rho_DTC).
        truth_tolerance: Share of a true event that such detections must cover (rho_GTC).
        cross_trigger_tolerance: Share of a false positive that overlaps events of another class from which on
            it is triggered by that class (rho_CTTC).
        cross_trigger_cost: Weight of cross-triggers among false positives (alpha_CT).
        instability_cost: Weight of the standard deviation over classes (alpha_ST).
        max_rate: Effective false positives per hour up to which the score is computed (e_max).
    """

    detection_tolerance: float = 0.7
    truth_tolerance: float = 0.7
    cross_trigger_tolerance: float = 0.3
    cross_trigger_cost: float = 0.0
    instability_cost: float = 1.0
    max_rate: float = 100.0


SCENARIO_1 = PsdsOptions()
SCENARIO_2 = PsdsOptions(0.1, 0.1, 0.3, 0.5, 1.0)
"""DCASE's scenario 2, which asks for the right classes rather than for exact times."""


class _Rates(NamedTuple):
    """At one operating point: true positive ratio and effective false positive rate, shape (class,)."""

    true: Floats
    effective_false: Floats


def psds(
    truth: Recordings,
    operating_points: Iterable[Recordings],
    labels: Sequence[str],
    duration_s: float,
    options: PsdsOptions = SCENARIO_1,
) -> float:
    """Computes the polyphonic sound detection score.

    Args:
        truth: True events.
        operating_points: The events that are detected at each of several thresholds.
        labels: One per class; those without a true event are left out.
        duration_s: Duration of all recordings in seconds.
        options: Parameters of the score.

    Returns:
        Area under the effective true positive ratio over the effective false positive rate, in [0, 1].

    Raises:
        DataError: If there is no true event, or an operating point has not the recordings of the truth.
    """
    present = [label for label in labels if any(len(spans(true, label)) for true in truth)]
    if not present:
        raise DataError("no true event has one of the labels: the score is not defined")
    rates = [_rates(truth, detected, present, duration_s, options) for detected in operating_points]
    if not rates:
        return 0.0
    true, false = (np.stack(table) for table in zip(*rates, strict=True))  # (operating point, class)
    edges = np.unique(np.append(false[false < options.max_rate], [0.0, options.max_rate]))
    ratios = np.stack([_step_curve(edges[:-1], *curve) for curve in zip(false.T, true.T, strict=True)])
    effective = np.maximum(ratios.mean(0) - options.instability_cost * ratios.std(0), 0.0)
    return float(np.sum(effective * np.diff(edges)) / options.max_rate)


def _step_curve(at: Floats, false: Floats, true: Floats) -> Floats:
    """The best ratio of the operating points whose rate is at most each of the given ones."""
    order = np.argsort(false, kind="stable")
    best = np.concatenate([[0.0], np.maximum.accumulate(true[order])])
    return best[np.searchsorted(false[order], at, side="right")]


def _rates(
    truth: Recordings, detected: Recordings, labels: Sequence[str], duration_s: float, options: PsdsOptions
) -> _Rates:
    if len(truth) != len(detected):
        raise DataError(f"truth has {len(truth)} recordings, an operating point has {len(detected)}")
    hits, true_count, true_s, false = (np.zeros(len(labels)) for _ in range(4))
    triggers = np.zeros((len(labels), len(labels)))  # (detected class, true class)
    for true_events, found_events in zip(truth, detected, strict=True):
        true = [spans(true_events, label) for label in labels]
        true_count += [len(events) for events in true]
        true_s += [float(np.sum(events[:, 1] - events[:, 0])) for events in true]
        for number, label in enumerate(labels):
            found = spans(found_events, label)
            if not len(found):
                continue
            is_right = _overlap_share(found, true[number]) >= options.detection_tolerance
            covered = _overlap_share(true[number], found[is_right])
            hits[number] += np.sum(covered >= options.truth_tolerance)
            wrong = found[~is_right]
            false[number] += len(wrong)
            if len(wrong) and options.cross_trigger_cost:
                triggers[number] += [
                    np.sum(_overlap_share(wrong, events) >= options.cross_trigger_tolerance)
                    for events in true
                ]
    np.fill_diagonal(triggers, 0)
    cross_rates = (triggers / true_s).sum(1) / max(1, len(labels) - 1)
    rates = false / duration_s + options.cross_trigger_cost * cross_rates
    return _Rates(hits / true_count, rates * _HOUR_S)


def _overlap_share(events: Floats, others: Floats) -> Floats:
    """The share of each event that others overlap, overlaps summed, shape (event,)."""
    starts = np.maximum(events[:, None, 0], others[:, 0])
    ends = np.minimum(events[:, None, 1], others[:, 1])
    return np.asarray(np.maximum(ends - starts, 0.0).sum(1) / (events[:, 1] - events[:, 0]))
