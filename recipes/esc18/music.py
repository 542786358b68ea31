"""Composes the short pieces of music among the negative clips, as notes and as standard MIDI files.

Two composers that share no rule: ``tonal`` (training: keys, chord progressions, a walking melody, bass, drum
grids) and ``cyclic`` (test: modes, motifs inverted and imitated in canon, Euclidean rhythms, drones).

Conventions: times in seconds; keys and programs as in General MIDI, counted from 0; channel 9 is the drums; a
piece lasts about seven seconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LENGTH_S = 7.0
DRUMS = 9
# Tinkle bell, tubular bells, glockenspiel and the sound effects (fret, breath, sea, bird, phone, helicopter,
# applause, gunshot) are or resemble classes; a lone wood block ticks, a lone agogo rings.
PROGRAMS_LEFT_OUT = frozenset({9, 14, 112, 113, 115, *range(120, 128)})
PROGRAMS = tuple(program for program in range(128) if program not in PROGRAMS_LEFT_OUT)
BASSES = tuple(range(32, 40))
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
PROGRESSIONS = (
    (0, 4, 5, 3),
    (0, 3, 4, 0),
    (5, 3, 0, 4),
    (0, 5, 1, 4),
    (0, 2, 3, 4),
    (0, 0, 3, 4),
    (1, 4, 0, 5),
)
MODES = (
    (0, 2, 4, 7, 9),
    (0, 3, 5, 7, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 1, 4, 5, 7, 8, 10),
    (0, 2, 4, 6, 8, 10),
)
# Sixteen steps of kick (36), snare (38) and hi-hat (42); x is a stroke
GRIDS = (
    {36: "x.......x.x.....", 38: "....x.......x...", 42: "x.x.x.x.x.x.x.x."},
    {36: "x...x...x...x...", 38: "....x.......x..x", 46: "..x...x...x...x."},
    {36: "x..x......x..x..", 38: "....x..x.x..x...", 42: "xxxxxxxxxxxxxxxx"},
    {36: "x.....x.....x...", 37: "...x..x...x..x..", 51: "x.xx.xx.xx.xx.x."},
    {36: "x.........x.....", 38: "........x.......", 42: "x...x...x...x..."},
    {41: "x..x..x.........", 45: "........x..x....", 48: "......x.......xx", 36: "x.......x......."},
)
STROKES = (35, 36, 37, 38, 40, 41, 43, 45, 48, 51, 54, 60, 61, 62, 63, 64, 69)


@dataclass(frozen=True)
class Note:
    """A note: start and length in seconds, channel 0 to 15, key 0 to 127, velocity 1 to 127."""

    start_s: float
    length_s: float
    channel: int
    key: int
    velocity: int


@dataclass(frozen=True)
class Score:
    """Notes, and the program that plays each channel."""

    notes: list[Note]
    programs: dict[int, int]


def midi_file(score: Score) -> bytes:
    """Writes a score as a standard MIDI file of format 0, in ticks of one millisecond."""
    events = [(0, 0, bytes((0xC0 | channel, program))) for channel, program in score.programs.items()]
    for note in score.notes:
        key, velocity = int(np.clip(note.key, 0, 127)), int(np.clip(note.velocity, 1, 127))
        start, end = round(note.start_s * 1000), round((note.start_s + note.length_s) * 1000)
        events.append((start, 2, bytes((0x90 | note.channel, key, velocity))))
        events.append((max(end, start + 1), 1, bytes((0x80 | note.channel, key, 0))))
    track, now = bytearray(), 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    # 500 ticks a quarter at MIDI's default of 500 ms a quarter
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 500, b"MTrk", len(track)) + bytes(track)


def _variable_length(number: int) -> bytes:
    """MIDI's variable-length number: seven bits a byte, every byte but the last flagged."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def _degree(scale: tuple[int, ...], root: int, step: int) -> int:
    """The key of a scale's step; steps beyond the scale go on in the next octave."""
    return root + scale[step % len(scale)] + 12 * (step // len(scale))


@dataclass(frozen=True)
class _Key:
    """What the parts of one tonal piece share."""

    scale: tuple[int, ...]
    root: int
    progression: tuple[int, ...]
    beat_s: float

    def bars(self) -> Iterator[tuple[float, int]]:
        """Start and scale step of each half-bar of two beats."""
        for bar in range(int(LENGTH_S / (2 * self.beat_s)) + 1):
            yield bar * 2 * self.beat_s, self.progression[bar % len(self.progression)]


def _melody(rng: np.random.Generator, key: _Key, channel: int, octave: int) -> Iterator[Note]:
    """A random walk over the scale in note values from a quarter of a beat to two beats, with rests."""
    now, step = 0.0, int(rng.integers(0, 7))
    values = (0.25, 0.5, 1.0, 1.5, 2.0)[int(rng.integers(0, 3)) :]
    while now < LENGTH_S:
        length = key.beat_s * float(rng.choice(values))
        if rng.random() > 0.12:
            pitch = _degree(key.scale, key.root, step) + 12 * octave
            yield Note(now, length * rng.uniform(0.5, 1.05), channel, pitch, int(rng.integers(60, 120)))
        step = int(np.clip(step + rng.integers(-3, 4), -5, 11))
        now += length


def _chords(rng: np.random.Generator, key: _Key, channel: int, octave: int) -> Iterator[Note]:
    """Triads or sevenths of the progression: held, struck on every beat, or broken."""
    way, size = int(rng.integers(0, 3)), int(rng.integers(3, 5))
    for start, step in key.bars():
        keys = [_degree(key.scale, key.root, step + 2 * i) + 12 * octave for i in range(size)]
        velocity = int(rng.integers(55, 105))
        if way == 0:
            yield from (Note(start, 2 * key.beat_s, channel, pitch, velocity) for pitch in keys)
        elif way == 1:
            times = (start, start + key.beat_s)
            yield from (
                Note(time, 0.6 * key.beat_s, channel, pitch, velocity) for time in times for pitch in keys
            )
        else:
            half = key.beat_s / 2
            yield from (
                Note(start + i * half, 1.5 * half, channel, keys[i % size], velocity) for i in range(4)
            )


def _bass(rng: np.random.Generator, key: _Key, channel: int) -> Iterator[Note]:
    """Roots and fifths of the progression, one to four in a half-bar."""
    count = int(rng.choice([1, 2, 4]))
    length = 2 * key.beat_s / count
    for start, step in key.bars():
        for i in range(count):
            pitch = _degree(key.scale, key.root - 24, step + int(rng.choice([0, 0, 0, 4])))
            yield Note(start + i * length, 0.85 * length, channel, pitch, int(rng.integers(70, 115)))


def _drum_grid(rng: np.random.Generator, beat_s: float) -> Iterator[Note]:
    """One of the drum grids over and over, strokes left out and added by chance."""
    grid = GRIDS[int(rng.integers(0, len(GRIDS)))]
    for step in range(int(LENGTH_S / (beat_s / 4))):
        for stroke, pattern in grid.items():
            if (pattern[step % 16] == "x") != (rng.random() < 0.06):
                yield Note(step * beat_s / 4, 0.1, DRUMS, stroke, int(rng.integers(50, 120)))


def tonal(rng: np.random.Generator, program: int, ensemble: bool) -> Score:
    """A piece in a major or minor key: one instrument alone, or with chords, bass and drums around it.

    Args:
        rng: Source of every choice.
        program: The instrument alone, or of the melody.
        ensemble: Whether others play along.
    """
    scale = SCALES[int(rng.integers(0, 2))]
    progression = PROGRESSIONS[int(rng.integers(0, len(PROGRESSIONS)))]
    key = _Key(scale, int(rng.integers(50, 68)), progression, 60 / rng.uniform(60, 180))
    octave = -2 if program in BASSES else int(rng.integers(-1, 2))
    part = _melody if ensemble or rng.random() < 0.6 else _chords
    notes, programs = list(part(rng, key, 0, octave)), {0: program}
    if ensemble:
        notes += _chords(rng, key, 1, int(rng.integers(-1, 1)))
        programs[1] = int(rng.choice(PROGRAMS))
        if rng.random() < 0.75:
            notes += _bass(rng, key, 2)
            programs[2] = int(rng.choice(BASSES))
        if rng.random() < 0.75:
            notes += _drum_grid(rng, key.beat_s)
            programs[DRUMS] = int(rng.choice(DRUM_KITS))
    return Score(notes, programs)


def euclid(strokes: int, steps: int, turn: int = 0) -> list[int]:
    """The steps (of ``steps``) on which strokes fall when spread as evenly as whole steps allow."""
    return sorted((i * steps // strokes + turn) % steps for i in range(strokes))


def _motif(rng: np.random.Generator, length: int) -> list[int]:
    """Scale steps in which small intervals are likelier than leaps."""
    moves = rng.choice([-4, -2, -1, 0, 1, 2, 4], length, p=[0.05, 0.15, 0.25, 0.1, 0.25, 0.15, 0.05])
    return [int(step) for step in np.cumsum(moves)]


def cyclic(rng: np.random.Generator, program: int, ensemble: bool) -> Score:
    """A piece on a mode in cycles of 5 to 13 steps: a motif, inverted, backwards; with canon, drone, drums.

    Args:
        rng: Source of every choice.
        program: The instrument alone, or of the first voice.
        ensemble: Whether others play along.
    """
    mode = MODES[int(rng.integers(0, len(MODES)))]
    root, step_s = int(rng.integers(40, 72)) - 12 * (program in BASSES), rng.uniform(0.09, 0.32)
    cycle = int(rng.choice([5, 7, 9, 11, 13]))
    strokes = euclid(int(rng.integers(3, cycle)), cycle, int(rng.integers(0, cycle)))
    motif = _motif(rng, len(strokes))
    turns = (motif, [-step for step in motif], motif[::-1])
    line = [
        Note(
            (bar * cycle + at) * step_s,
            step_s * rng.uniform(0.7, 2.5),
            0,
            _degree(mode, root, step),
            70 + 5 * (at % 7),
        )
        for bar in range(int(LENGTH_S / (cycle * step_s)) + 1)
        for at, step in zip(strokes, turns[bar % 3], strict=True)
    ]
    if not ensemble:
        return Score(line, {0: program})
    delay, shift = cycle * step_s / 2, int(rng.choice([-12, 7, 12]))
    canon = [Note(n.start_s + delay, n.length_s, 1, n.key + shift, n.velocity - 10) for n in line]
    drone = [Note(0, LENGTH_S, 2, root - 12 + interval, 70) for interval in (0, 7)]
    beat = [
        Note((bar * cycle + at) * step_s, 0.1, DRUMS, stroke, int(rng.integers(50, 115)))
        for stroke in rng.choice(STROKES, 4, replace=False).tolist()
        for strokes in [euclid(int(rng.integers(2, cycle)), cycle, int(rng.integers(0, cycle)))]
        for bar in range(int(LENGTH_S / (cycle * step_s)) + 1)
        for at in strokes
    ]
    voices = {
        0: program,
        1: int(rng.choice(PROGRAMS)),
        2: int(rng.choice(PROGRAMS)),
        DRUMS: int(rng.choice(DRUM_KITS)),
    }
    return Score(line + canon + drone + beat, voices)
