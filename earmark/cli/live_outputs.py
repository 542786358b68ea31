"""Where the messages of ``earmark listen`` go: lines for people or machines, a live view, an MQTT broker.

Conventions: a message is a dict with a "type": listening, start, end, gap or stopped. Messages of what was
heard go to standard output, those about the session itself to standard error, unless the lines are JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from earmark.cli.terminal import complain, note, printable, say_raw, warn
from earmark.inference.listener import Listener

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from earmark.events.mqtt import Publisher

Message = Mapping[str, Any]
TOP = 5
"""Labels in the live view."""
_QUIETEST_DB = -99.0


class Output(Protocol):
    """Takes the messages of a session."""

    def write(self, message: Message) -> None:
        """Hands on a message."""

    def tick(self) -> None:
        """Called several times a second."""


class JsonLines:
    """One JSON object per line on standard output."""

    def write(self, message: Message) -> None:
        """Prints a message at once."""
        say_raw(to_json(message) + "\n")

    def tick(self) -> None:
        """Nothing."""


class TextLines:
    """One line per message, for people.

    Args:
        quiet: Whether messages about the session itself are left out.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def write(self, message: Message) -> None:
        """Prints a message at once."""
        if message["type"] in ("start", "end", "gap"):
            self.say(as_line(message))
        elif not self._quiet:
            note(as_line(message))

    def say(self, line: str) -> None:
        """Prints a line to standard output."""
        say_raw(printable(line) + "\n")

    def tick(self) -> None:
        """Nothing."""


class LiveView(TextLines):
    """The labels with the highest scores at the bottom of a terminal, the lines of what was heard above them.

    Args:
        console: The terminal.
        listener: What is shown.
        labels: Labels that are shown.
    """

    def __init__(self, console: Console, listener: Listener, labels: frozenset[str]) -> None:
        super().__init__(quiet=False)
        self._console, self._listener = console, listener
        self._shown = [index for index, label in enumerate(listener.labels) if label in labels]

    def say(self, line: str) -> None:
        """Prints a line above the view."""
        self._console.print(printable(line), markup=False, highlight=False, emoji=False)

    def view(self) -> RenderableType:
        """The view at this moment."""
        return _view(self._listener, self._shown)


def _view(listener: Listener, shown: Sequence[int]) -> RenderableType:
    """Position and level, and the highest scores among some labels; those that are on stand out."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    scores, active = listener.scores, set(listener.active)
    table = Table.grid(padding=(0, 2))
    level_db = max(listener.level_db, _QUIETEST_DB)
    table.add_row(Text(f"{clock(listener.position_s)}  {level_db:.0f} dB", style="dim"))
    for index in sorted(shown, key=lambda one: -scores[one])[:TOP]:
        label = listener.labels[index]
        table.add_row(
            Text(printable(label), style="bold" if label in active else ""),
            Text(f"{scores[index]:.2f}"),
            ProgressBar(total=1.0, completed=float(scores[index]), width=20),
        )
    return table


@contextmanager
def text_output(listener: Listener, labels: frozenset[str], quiet: bool) -> Iterator[Output]:
    """Opens lines for people, with a live view in a terminal unless quiet."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if quiet or not console.is_terminal:
        yield TextLines(quiet)
        return
    output = LiveView(console, listener, labels)
    with Live(get_renderable=output.view, console=console, transient=True, redirect_stderr=True):
        yield output


class BrokerOutput:
    """Messages to an MQTT broker.

    Args:
        publisher: An open connection.
        quiet: Whether the state of the connection is left out.

    Attributes:
        undelivered: Messages that did not arrive; known when it is closed.
    """

    def __init__(self, publisher: Publisher, quiet: bool) -> None:
        self._publisher, self._quiet = publisher, quiet
        self.undelivered = 0

    def write(self, message: Message) -> None:
        """Publishes a message."""
        self._publisher.publish(to_json(message))

    def tick(self) -> None:
        """Prints what happened to the connection."""
        warn(self._publisher.reports(), self._quiet)

    def close(self) -> None:
        """Waits for the broker, disconnects, and says how many messages did not arrive."""
        self.undelivered = self._publisher.close()
        self.tick()
        if self.undelivered:
            complain(f"{self.undelivered} messages did not reach the MQTT broker")


def to_json(message: Message) -> str:
    """A message as a line of JSON without control characters."""
    return printable(json.dumps(message, ensure_ascii=False))


def clock(position_s: float) -> str:
    """A position as h:mm:ss.s."""
    tenths = math.floor(position_s * 10 + 1e-6)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def as_line(message: Message) -> str:
    """A message as a line for people."""
    match message["type"]:
        case "start":
            return f"{clock(message['start_s'])}  start  {message['label']}  {message['peak']:.2f}"
        case "end":
            span = f"{clock(message['start_s'])} - {clock(message['end_s'])}"
            return f"{clock(message['end_s'])}  end    {message['label']}  {message['peak']:.2f}  ({span})"
        case "gap":
            return (
                f"{clock(message['start_s'])}  gap    {message['duration_s']:.3f} s lost: {message['reason']}"
            )
        case "listening":
            return (
                f"listening to {message['source']} at {message['sample_rate']} Hz with {message['model']}: "
                f"window {message['window_s']:g} s, hop {message['hop_s']:g} s; Ctrl-C ends"
            )
    return (
        f"listened to {clock(message['position_s'])}: {message['events']} events, "
        f"{message['gaps']} gaps of {message['lost_s']:.1f} s together"
    )
