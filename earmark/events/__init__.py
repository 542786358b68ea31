"""Scores over time -> events with a start and an end, and the file formats of events.

Conventions: times are seconds from the start of a recording; scores lie in [0, 1]. This room knows scores and
labels only, not the models that they come from.
"""
