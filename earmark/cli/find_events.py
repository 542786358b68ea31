"""The events of results, and where they are written.

Conventions: as :mod:`earmark.cli.write_results`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli.event_options import EventRequest
from earmark.cli.terminal import has_blocks, table_width, warn
from earmark.cli.write_results import Add, events_table_writer, text_writer, texts_writer
from earmark.errors import AudioError, extra
from earmark.events.layout import Format, Layout
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from datetime import datetime

    from earmark.events.event import RecordingEvents
    from earmark.events.options import EventOptions
    from earmark.inference.result import Result


class EventFinder:
    """Detects the events of results, and plots them if that was asked for.

    Args:
        request: The options as given.
        options: How events are detected.
        inputs: Files and folders of the recordings.
        quiet: Print no warnings.

    Raises:
        EarmarkError: If the time zone is unknown, or plots are not possible.
    """

    def __init__(
        self, request: EventRequest, options: EventOptions, inputs: Sequence[str], quiet: bool
    ) -> None:
        from earmark.events.recorded_at import time_zone

        self._options, self._quiet = options, quiet
        self._time_from, self._zone = request.time_from, time_zone(request.time_zone or "UTC")
        self._targets = None
        if request.plot is not None:
            from earmark.events.targets import Targets

            _require_plot(request.plot)
            self._targets = Targets(request.plot, ".png", inputs)

    def __call__(self, result: Result) -> RecordingEvents:
        """The events of a result.

        Raises:
            EarmarkError: If they cannot be plotted.
        """
        from earmark.events.event import RecordingEvents

        found = RecordingEvents(result, result.events(options=self._options), self._recorded_at(result.path))
        if self._targets is not None and result.path is not None:
            target = self._targets.of(result.path)
            require_other_files([target], [result.path])
            _plot(found, target)
        return found

    def _recorded_at(self, path: str | None) -> datetime | None:
        from earmark.events.recorded_at import recorded_at

        if self._time_from is None or path is None:
            return None
        try:
            return recorded_at(path, self._time_from, self._zone)
        except AudioError as error:
            warn([str(error)], self._quiet)
            return None


def _require_plot(path: Path) -> None:
    with extra("tag --plot", "plot"):
        from earmark.plots.timeline import require_plot

    require_plot(path)


def _plot(found: RecordingEvents, path: Path) -> None:
    from earmark.plots.timeline import plot_events

    plot_events(found, path)


def event_writer(
    form: Format,
    output: Path | None,
    find: Callable[[Result], RecordingEvents],
    *,
    inputs: Sequence[str],
    model: str,
    times: bool,
) -> AbstractContextManager[Add]:
    """Opens the writer of events in a format.

    Args:
        form: Any format.
        output: A file; a folder for formats of one recording; None: standard output.
        find: Detects the events of a result.
        inputs: Files and folders of the recordings.
        model: Name of the model.
        times: Whether times of day are written.
    """
    from earmark.events.formats import event_layout
    from earmark.events.table import event_table

    if form is Format.PARQUET:
        return events_table_writer(output, model, find)

    def layout() -> Layout[Any]:
        if form is Format.TABLE:
            size = () if output else (table_width(), has_blocks())
            parts: Layout[Any] = Layout("", "\n", "", lambda found: event_table(found, *size))
        else:
            parts = event_layout(form, times=times)
        return replace(parts, render=lambda result: parts.render(find(result)))

    if layout().one_recording:
        return texts_writer(layout, output, inputs)
    return text_writer(layout(), form, output)
