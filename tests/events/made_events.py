"""Recordings and events for tests of the room."""

from dataclasses import dataclass
from datetime import datetime

from earmark.events.event import Event, RecordingEvents


@dataclass(frozen=True)
class Known:
    """What is known of a recording."""

    path: str | None = "a b/street (1).wav"
    duration_s: float = 10.0
    sample_rate: int = 16000
    model: str = "toy"
    calibrated: bool = False
    warnings: tuple[str, ...] = ()


EVENTS = (
    Event("Dog", 0.0, 1.5, 0.875, 0.5, 1.0),
    Event('Door "knock" & <slam> -->', 1.25, 3.0, 0.75, 0.625, 1.0),
    Event("Dog", 2.25, 2.75, 0.5, 0.5, 1.0),
    Event("Regen, Wind", 9.0, 10.0, 0.9375, 0.8125, 1.0),
)


def made(
    events: tuple[Event, ...] = EVENTS, recorded_at: datetime | None = None, **changes: object
) -> RecordingEvents:
    return RecordingEvents(Known(**changes), events, recorded_at)
