"""The microphone, through PortAudio (package sounddevice, extra ``mic``).

Conventions: blocks of a tenth of a second, mono float32 ``(time,)``. Samples that the operating system could
not hand over, or that nobody took in time, are :class:`earmark.audio.live.Lost`.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.audio.live import Lost
from earmark.errors import AudioError, extra

Floats = NDArray[np.float32]

BLOCKS_PER_S = 10
LONGEST_WAIT_S = 30
"""Seconds of sound that wait to be taken; later ones are lost."""
PATIENCE_S = 5.0
"""Seconds without a sample after which a microphone counts as gone."""
_NO_PORTAUDIO = (
    "the microphone needs the PortAudio library: install libportaudio2 (on Debian: apt install libportaudio2)"
)


class Input(NamedTuple):
    """An input of the system; its rate is the usual one, in Hz."""

    number: int
    name: str
    channels: int
    sample_rate: int
    is_default: bool


def list_inputs() -> list[Input]:
    """Lists the inputs that sound can be recorded from.

    Raises:
        AudioError: If PortAudio is missing.
        MissingExtraError: If sounddevice is not installed.
    """
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    return [
        Input(
            number,
            str(one["name"]),
            int(one["max_input_channels"]),
            round(one["default_samplerate"]),
            number == default,
        )
        for number, one in enumerate(sounddevice.query_devices())
        if one["max_input_channels"] > 0
    ]


class Microphone:
    """An input that is recorded from; a context manager.

    Args:
        device: Number or a part of the name of the input, see :func:`list_inputs`; None: the default one.
        sample_rate: In Hz; None: the input's usual rate.

    Attributes:
        name: Of the input.
        sample_rate: In Hz.
        overflows: How often samples were lost.

    Raises:
        AudioError: If PortAudio is missing, there is no such input, or it cannot be opened.
        MissingExtraError: If sounddevice is not installed.
    """

    def __init__(self, device: str | int | None = None, sample_rate: int | None = None) -> None:
        sounddevice = _sounddevice()
        chosen = int(device) if isinstance(device, str) and device.isdecimal() else device
        wanted = "no microphone was found" if device is None else f"microphone {device!r} was not found"
        try:
            facts = sounddevice.query_devices(chosen, "input")
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AudioError(f"{wanted}: earmark listen --list-mics lists the inputs") from error
        self.name = str(facts["name"])
        self.sample_rate = sample_rate or round(facts["default_samplerate"])
        self.overflows = 0
        self._lost, self._lost_reason = 0, ""
        self._next_s: float | None = None
        self._blocks: queue.Queue[Floats | Lost | None] = queue.Queue(LONGEST_WAIT_S * BLOCKS_PER_S)
        try:
            self._stream: Any = sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=max(1, self.sample_rate // BLOCKS_PER_S),
                device=chosen,
                channels=1,
                dtype="float32",
                callback=self._take,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AudioError(f"microphone {self.name}: cannot be opened ({_reason(error)})") from error

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops recording."""
        self._stream.close()

    def stop(self) -> None:
        """Stops recording, and ends the blocks."""
        self.close()
        with suppress(queue.Full):  # which does not wait for more
            self._blocks.put_nowait(None)

    def blocks(self) -> Iterator[Floats | Lost]:
        """Yields what is recorded.

        Raises:
            AudioError: If no samples come any more, as when the microphone was unplugged.
        """
        while True:
            try:
                block = self._blocks.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise AudioError(
                    f"microphone {self.name}: no samples for {PATIENCE_S:g} s: is it still connected?"
                ) from None
            if block is None:
                return
            yield block

    def _take(self, samples: Floats, count: int, times: Any, status: Any) -> None:
        """Called by PortAudio in a thread of its own: samples (time, 1) in a buffer that it uses again."""
        if status.input_overflow:
            self._lose(self._missing(times), "the system could not hand over its samples in time")
        self._next_s = times.inputBufferAdcTime + count / self.sample_rate
        if self._blocks.qsize() >= self._blocks.maxsize - 1:  # there is room for this block and what was lost
            self._lose(count, "they came faster than they could be processed")
            return
        if self._lost or self._lost_reason:
            self._blocks.put(Lost(self._lost, self._lost_reason))
            self._lost, self._lost_reason = 0, ""
        self._blocks.put(samples[:, 0].copy())

    def _lose(self, count: int, reason: str) -> None:
        self.overflows += not self._lost_reason
        self._lost, self._lost_reason = self._lost + count, reason

    def _missing(self, times: Any) -> int:
        """Samples between the block before and this one, by PortAudio's clock."""
        if self._next_s is None:
            return 0
        return max(0, int((times.inputBufferAdcTime - self._next_s) * self.sample_rate + 0.5))


def _sounddevice() -> Any:
    try:
        with extra("the microphone", "mic"):
            import sounddevice
    except OSError as error:
        raise AudioError(_NO_PORTAUDIO) from error
    return sounddevice


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("Error opening InputStream: ")
