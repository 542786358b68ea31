"""``earmark listen``: live sound in, notices of events out.

Conventions: notices go to standard output as they come, and to an MQTT broker if one is given. The end of the
stream, Ctrl-C and SIGTERM end the events that are on and then the command, with code 0. An error does so with
code 1, or with 2 if nothing was listened to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from earmark.cli.options import Device, EngineName, Models, Precision, Quiet, Threads, parse_threshold
from earmark.cli.program import COULD_NOTHING, COULD_SOME, USE, command, one_matrix_thread
from earmark.cli.progress import download_bar
from earmark.cli.terminal import say
from earmark.errors import AudioError

if TYPE_CHECKING:
    from earmark.audio.live import LiveSource
    from earmark.cli.live_outputs import BrokerOutput, Output
    from earmark.events.options import LabelOptions
    from earmark.inference.listener import Listener

SOURCE, EVENTS = "Source", "Events"
"""Panels of options."""

Source = Annotated[
    str | None,
    typer.Argument(metavar="[SOURCE]", help="- for standard input (default: the microphone)."),
]
Threshold = Annotated[
    str,
    typer.Option(metavar="SCORE", help="Score that starts an event, 0 to 1, or auto for the model's own."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL[=SCORE]", help="Only this label, from this score on; repeatable."),
]
Broker = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Publish to mqtt://[USER@]HOST[:PORT]/TOPIC too (extra mqtt)."),
]
Mic = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Number or name of the microphone.", rich_help_panel=SOURCE),
]
ListMics = Annotated[
    bool, typer.Option("--list-mics", help="List the microphones, and exit.", rich_help_panel=SOURCE)
]
Rate = Annotated[
    int | None,
    typer.Option(metavar="HZ", help="Rate of raw samples, or of the microphone.", rich_help_panel=SOURCE),
]
Channels = Annotated[
    int | None,
    typer.Option(metavar="N", help="Channels of raw samples (default: 1).", rich_help_panel=SOURCE),
]
Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Type of raw samples (default: s16le).", rich_help_panel=SOURCE),
]
Window = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Window length (default: 1 s).", rich_help_panel=EVENTS),
]
Hop = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Hop between windows (default: half a window).", rich_help_panel=EVENTS
    ),
]
OffThreshold = Annotated[
    float | None,
    typer.Option(
        metavar="SCORE", help="Score below which an event ends (default: 0.15 less).", rich_help_panel=EVENTS
    ),
]
MinDuration = Annotated[
    float, typer.Option(metavar="SECONDS", help="Shorter events are dropped.", rich_help_panel=EVENTS)
]
MergeGap = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="Longest gap within an event.", rich_help_panel=EVENTS),
]
Gate = Annotated[
    float | None,
    typer.Option(metavar="DB", help="Level that windows must have, such as -60.", rich_help_panel=EVENTS),
]


@command(USE)
def listen(
    source: Source = None,
    model: Models = None,
    threshold: Threshold = "auto",
    label: Labels = None,
    form: Annotated[Literal["text", "jsonl"], typer.Option("--format", "-f", help="Output format.")] = "text",
    mqtt: Broker = None,
    quiet: Quiet = False,
    mic: Mic = None,
    list_mics: ListMics = False,
    rate: Rate = None,
    channels: Channels = None,
    encoding: Encoding = None,
    window: Window = None,
    hop: Hop = None,
    off_threshold: OffThreshold = None,
    min_duration: MinDuration = 0.25,
    merge_gap: MergeGap = 0.1,
    gate: Gate = None,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Detect events in live sound."""
    one_matrix_thread()
    if list_mics:
        _list_mics()
        return
    from earmark.cli.live_session import LiveSession, stop_signals
    from earmark.events.options import EventOptions
    from earmark.inference.load import load

    limit = parse_threshold(threshold)
    with download_bar(quiet) as bar:
        tagger = load(model, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    chosen, own = _labels(tagger.labels, label)
    options = EventOptions(limit, off_threshold, min_duration, merge_gap, per_label=own)
    with ExitStack() as resources:
        opened = _open_source(source, mic, rate, (channels, encoding), resources)
        listener = tagger.listen(opened.sample_rate, options, window_s=window, hop_s=hop, gate_db=gate)
        with stop_signals() as is_stopped, _outputs(form, mqtt, quiet, listener, chosen) as outputs:
            is_whole = LiveSession(opened, listener, chosen, outputs).run(tagger.info.name, is_stopped)
    if not is_whole:
        raise typer.Exit(COULD_SOME if listener.position_s else COULD_NOTHING)


@contextmanager
def _outputs(
    form: str, mqtt: str | None, quiet: bool, listener: Listener, labels: frozenset[str]
) -> Iterator[list[Output]]:
    """Opens where messages go; the broker is waited for at the end, and what it missed is an error."""
    from earmark.cli.live_outputs import BrokerOutput, JsonLines, text_output

    with ExitStack() as resources:
        broker: BrokerOutput | None = None
        if mqtt is not None:
            from earmark.events.mqtt import Publisher, parse_address

            address = parse_address(mqtt, os.environ.get("EARMARK_MQTT_PASSWORD"))
            broker = BrokerOutput(Publisher(address), quiet)
            resources.callback(broker.close)
        text = (
            JsonLines() if form == "jsonl" else resources.enter_context(text_output(listener, labels, quiet))
        )
        yield [text, broker] if broker else [text]
    if broker and broker.undelivered:
        raise typer.Exit(COULD_SOME)


def _open_source(
    source: str | None,
    mic: str | None,
    rate: int | None,
    raw: tuple[int | None, str | None],
    resources: ExitStack,
) -> LiveSource:
    channels, encoding = raw
    if source not in (None, "-"):
        raise typer.BadParameter(
            f"must be - or left out, got {source!r} (earmark tag --events is for files)", param_hint="SOURCE"
        )
    if source is None:
        if channels or encoding:
            raise typer.BadParameter(
                "is for raw samples on standard input: earmark listen - --rate ...",
                param_hint="--channels or --encoding",
            )
        from earmark.audio.microphone import Microphone

        return resources.enter_context(Microphone(mic, rate))
    if mic is not None:
        raise typer.BadParameter("is not for standard input: leave out -", param_hint="--mic")
    if sys.stdin is None:
        raise AudioError("standard input: is closed")
    from earmark.audio.live import DecodedStream, RawStream

    # Unbuffered: a thread that waits in a buffered file would keep Python from ending.
    file: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    if rate is None:
        if channels or encoding:
            raise typer.BadParameter(
                "is for raw samples, which need --rate too", param_hint="--channels or --encoding"
            )
        return DecodedStream(file)
    return RawStream(file, rate, channels or 1, encoding or "s16le")


def _labels(
    labels: tuple[str, ...], wanted: list[str] | None
) -> tuple[frozenset[str], dict[str, LabelOptions]]:
    """The labels to report, and the thresholds of those that have one of their own."""
    from earmark.events.options import LabelOptions
    from earmark.model_file.label_selection import select_labels

    chosen, own = set(), {}
    for text in wanted or []:
        name, _, score = text.rpartition("=")
        is_label = not name
        [index] = select_labels(labels, [text if is_label else name])
        chosen.add(labels[index])
        if not is_label:
            limit = parse_threshold(score, "--label")
            own[labels[index]] = LabelOptions(threshold=None if limit == "auto" else limit)
    return frozenset(chosen or labels), own


def _list_mics() -> None:
    from earmark.audio.microphone import list_inputs

    inputs = list_inputs()
    for one in inputs:
        mark = ", default" if one.is_default else ""
        say(f"{one.number:3d}  {one.name}  ({one.channels} channels, {one.sample_rate} Hz{mark})")
    if not inputs:
        raise AudioError("no microphone was found")
