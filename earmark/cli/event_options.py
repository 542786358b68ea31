"""The options of events, for commands that tag recordings.

Conventions: an option that is not given is None; what it is by default, the room of events decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.events.layout import TAG_FORMATS, Format

if TYPE_CHECKING:
    from earmark.events.options import EventOptions

EVENTS = "Events (when each sound starts and ends)"

AsEvents = Annotated[
    bool,
    typer.Option(
        "--events",
        help=f"Detect events; further formats: {', '.join(list(Format)[len(TAG_FORMATS) :])}.",
        rich_help_panel=EVENTS,
    ),
]
OffThreshold = Annotated[
    float | None,
    typer.Option(
        metavar="SCORE",
        help="A lower score ends an event (default: threshold - 0.15).",
        rich_help_panel=EVENTS,
    ),
]
MinDuration = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Drop shorter events (default: 0.25).", rich_help_panel=EVENTS),
]
MergeGap = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Merge events this close (default: 0.1).", rich_help_panel=EVENTS),
]
Smooth = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Moving median of scores (default: none).", rich_help_panel=EVENTS),
]
DetectionMethod = Annotated[
    Literal["hysteresis", "change_points"] | None,
    typer.Option("--method", help="How events are found (default: hysteresis).", rich_help_panel=EVENTS),
]
Settings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML file of settings by label.", rich_help_panel=EVENTS),
]
TimeFrom = Annotated[
    Literal["name", "header"] | None,
    typer.Option(help="Add times of day, from file names or headers.", rich_help_panel=EVENTS),
]
TimeZone = Annotated[
    str | None,
    typer.Option(metavar="ZONE", help="Of times that state none (default: UTC).", rich_help_panel=EVENTS),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Plot spectrogram and events; a folder for several.", rich_help_panel=EVENTS
    ),
]


@dataclass(frozen=True)
class EventRequest:
    """The options of events as given; None where they are not."""

    off_threshold: float | None
    min_duration: float | None
    merge_gap: float | None
    smooth: float | None
    method: str | None
    settings: Path | None
    time_from: Literal["name", "header"] | None
    time_zone: str | None
    plot: Path | None

    def refuse(self, form: Format) -> None:
        """Refuses options and formats of events where tags are asked for.

        Raises:
            BadParameter: If there is one.
        """
        for one in fields(self):
            if getattr(self, one.name) is not None:
                raise typer.BadParameter("needs --events", param_hint=f"--{one.name.replace('_', '-')}")
        if form not in TAG_FORMATS:
            raise typer.BadParameter(f"{form} is a format of events: add --events", param_hint="--format")

    def options(self, labels: Sequence[str], threshold: float | Literal["auto"] | None) -> EventOptions:
        """How events are detected.

        Raises:
            EarmarkError: If a value is not possible.
        """
        from earmark.events.settings import read_settings

        changes = {
            "threshold": threshold,
            "off_threshold": self.off_threshold,
            "min_duration_s": self.min_duration,
            "merge_gap_s": self.merge_gap,
            "smooth_s": self.smooth,
            "method": self.method,
        }
        return read_settings(self.settings, labels, changes)
