"""Calibration: turns scores into probabilities, chooses thresholds, and measures both on held-out clips.

Conventions: targets are (clip, class): 0, 1, or NaN where unknown; unknown entries are ignored.
"""
