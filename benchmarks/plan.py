"""How often each part is measured.

Conventions: a pair is one measurement of the reference and one of earmark; a round is one of every side.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Numbers of repetitions, and minutes of the long recording."""

    cold: int = 11
    warm: int = 15
    long: int = 5
    memory: int = 3
    networks: int = 11
    packs: int = 9
    step: int = 5
    engines: int = 15
    archive: int = 4
    minutes: int = 10


QUICK = Plan(cold=3, warm=3, long=2, memory=1, networks=3, packs=3, step=1, engines=5, archive=2, minutes=1)
