"""A session of ``earmark listen``: takes samples, hands out messages, states gaps, and ends cleanly.

Conventions: every message has the wall-clock "time" at which it was made, in UTC; positions in the stream are
seconds from its first sample.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from earmark.audio.live import LiveSource, Lost, ReadingThread
from earmark.cli.live_outputs import Output
from earmark.cli.terminal import complain
from earmark.errors import AudioError, EarmarkError
from earmark.inference.listener import Listener

if TYPE_CHECKING:
    from earmark.events.online import Notice

_TICK_S = 0.25
"""Longest wait for samples before signals and outputs get their turn."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into an event; the next one has its usual effect."""
    is_stopped = threading.Event()

    def stop(number: int, _frame: object) -> None:
        is_stopped.set()
        signal.signal(number, usual[signal.Signals(number)])

    usual = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield is_stopped
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


class LiveSession:
    """Listens to one source.

    Args:
        source: Where the samples come from.
        listener: Detects the events.
        labels: Labels that are reported.
        outputs: Where messages go.
    """

    def __init__(
        self, source: LiveSource, listener: Listener, labels: frozenset[str], outputs: Sequence[Output]
    ) -> None:
        self._source, self._listener, self._labels, self._outputs = source, listener, labels, outputs
        self._events = self._gaps = 0

    def run(self, model: str, is_stopped: threading.Event) -> bool:
        """Listens until the source ends or fails, or the event is set; then ends what is on.

        Args:
            model: Name of the model, for the first message.
            is_stopped: Ends the session.

        Returns:
            Whether there was no error; one is printed.
        """
        listener = self._listener
        self._write(
            "listening",
            source=self._source.name,
            sample_rate=listener.sample_rate,
            model=model,
            window_s=listener.window_s,
            hop_s=listener.hop_s,
        )
        problem: EarmarkError | None = None
        try:
            self._listen(is_stopped)
        except EarmarkError as error:
            problem = error
        try:
            self._report(listener.flush())
        except EarmarkError as error:
            problem = problem or error
        self._write(
            "stopped",
            position_s=round(listener.position_s, 3),
            events=self._events,
            gaps=self._gaps,
            lost_s=round(listener.skipped_s, 3),
            error=None if problem is None else str(problem),
        )
        if problem is not None:
            complain(str(problem))
        return problem is None

    def _listen(self, is_stopped: threading.Event) -> None:
        is_ending = False
        with ReadingThread(self._source) as samples:
            while not samples.is_over:
                if is_stopped.is_set() and not is_ending:
                    is_ending = True
                    self._source.stop()  # what has come in is listened to
                block = samples.get(_TICK_S)
                if block is None and is_ending:
                    break
                if isinstance(block, Lost):
                    self._gap(block)
                elif block is not None:
                    self._report(self._listener.feed(block))
                for output in self._outputs:
                    output.tick()
        if not is_ending and not self._listener.position_s:
            raise AudioError(f"{self._source.name}: ended without a sample")

    def _gap(self, lost: Lost) -> None:
        listener = self._listener
        self._gaps += 1
        start_s, duration_s = round(listener.position_s, 3), round(lost.samples / listener.sample_rate, 3)
        self._write("gap", start_s=start_s, duration_s=duration_s, reason=lost.reason)
        self._report(listener.skip(lost.samples))

    def _report(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice.event.label in self._labels:
                self._events += notice.kind == "start"
                facts = notice.to_dict()
                self._write(facts.pop("type"), **facts)

    def _write(self, kind: str, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        for output in self._outputs:
            output.write({"type": kind, **facts, "time": now})
