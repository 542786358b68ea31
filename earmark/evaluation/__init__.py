"""Evaluation of models: metrics of predictions, calibration, speed and cost.

Conventions: targets and scores are (clip, class); targets are 0, 1, or NaN where unknown, and unknown entries
are ignored. ``run`` evaluates a model on a dataset; the other modules do one step each.
"""
