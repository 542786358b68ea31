"""Tags mutated files of every format, in child processes with limits.

``python tests/audio/mutated_files.py 3000`` tries as many. Each file has a number, from which it is made
again: ``python tests/audio/mutated_files.py --show 1234 > file``.
"""

from __future__ import annotations

import collections
import io
import re
import resource
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

BATCH = 100
"""Files of a child."""
MEMORY = 4 << 30
"""Address space of a child in bytes; PyAV, NumPy and ONNX Runtime map 1.5 GiB of it."""
FILE_S = 20
"""Seconds for a file."""
RATE = 16000
# fmt: off
SOUND_FILES = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "PCM_U8"),
    ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"), ("AU", "PCM_16"), ("VOC", "PCM_16"), ("MAT4", "FLOAT"), ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]
FFMPEG_FILES = [
    ("mp4", "aac"), ("ipod", "alac"), ("mov", "pcm_s16be"), ("3gp", "aac"), ("adts", "aac"),
    ("matroska", "libopus"), ("matroska", "flac"), ("webm", "libopus"), ("mpegts", "aac"),
    ("mpegts", "mp2"), ("asf", "wmav2"), ("ac3", "ac3"), ("eac3", "eac3"), ("avi", "mp2"),
    ("wav", "ac3"), ("flv", "aac"), ("nut", "aac"), ("tta", "tta"), ("wv", "wavpack"),
    ("ogg", "flac"),
]
# fmt: on


@cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """A suffix and the content of a file of each format, 0.7 s of two channels."""
    time = np.arange(7 * RATE // 10) / RATE
    sound = np.stack(
        [0.4 * np.sin(2 * np.pi * 700 * time * (1 + time)), 0.2 * np.sin(2 * np.pi * 90 * time)], 1
    )
    found = []
    for kind, subtype in SOUND_FILES:
        target = io.BytesIO()
        channels = 1 if subtype == "GSM610" else 2
        soundfile.write(target, sound[:, :channels], RATE, format=kind, subtype=subtype)
        found.append((f".{kind.lower()}", target.getvalue()))
    for kind, codec in FFMPEG_FILES:
        if content := through_ffmpeg(sound, kind, codec):
            found.append((f".{kind}", content))
    for path in sorted((Path(__file__).parent / "odd").iterdir()):
        found.append((path.suffix, path.read_bytes()[:60_000]))
    return tuple(found)


def through_ffmpeg(sound: np.ndarray, kind: str, codec: str) -> bytes | None:
    """The sound as FFmpeg encodes it; None where this build of it cannot."""
    import av

    rate = 48000 if codec in ("libopus", "ac3", "eac3", "wmav2") else RATE
    with tempfile.NamedTemporaryFile() as target:
        try:
            with av.open(target.name, "w", format=kind) as container:
                track = container.add_stream(codec, rate=rate, layout="stereo")
                convert = av.AudioResampler(format=track.format, layout="stereo", rate=rate)
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(sound.T, np.float32), format="fltp", layout="stereo"
                )
                frame.sample_rate, frame.pts = RATE, 0
                for piece in [*convert.resample(frame), *convert.resample(None), None]:
                    container.mux(track.encode(piece))
        except (av.FFmpegError, ValueError):
            return None
        return Path(target.name).read_bytes()


def mutated(number: int) -> tuple[str, bytes]:
    """The suffix and the content of a mutated file."""
    rng = np.random.default_rng(number)
    suffix, content = seeds()[number % len(seeds())]
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        size = max(1, len(data))
        near = int(rng.integers(0, min(size, 300)))
        at = near if rng.random() < 0.5 else int(rng.integers(0, size))
        length = int(rng.integers(1, max(2, min(size // 4, 4000))))
        way = int(rng.integers(0, 9))
        if way == 0:
            del data[at:]
        elif way == 1:
            del data[at : at + length]
        elif way == 2:
            data[at:at] = data[at : at + length]
        elif way == 3:
            data[at : at + 4] = rng.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"]
            )
        elif way == 4:
            data[at : at + length] = rng.bytes(length)
        elif way == 5:
            data += seeds()[int(rng.integers(len(seeds())))][1]
        else:
            for place in rng.integers(at, min(size, at + 200), 1 + int(rng.integers(6))):
                if place < len(data):
                    data[place] ^= 1 << int(rng.integers(8))
    return suffix, bytes(data)


def run_child(first: int, end: int) -> None:
    """Tags files one by one, and prints a line before and after each."""
    import earmark
    from earmark.audio import load_piece

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tagger = earmark.load(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, end):
            suffix, content = mutated(number)
            path = Path(folder, f"{number}{suffix}")
            path.write_bytes(content)
            print("start", number, flush=True)
            signal.alarm(FILE_S)  # ends the process
            try:
                tagger.tag(path)
                load_piece(path, 32000, 8000, lambda excess: excess // 2)
                outcome = "tagged"
            except earmark.EarmarkError as error:
                is_typed = "\n" not in str(error) and str(path) in str(error)
                outcome = "typed" if is_typed else f"untyped: {error!r}"
            except BaseException as error:
                outcome = f"untyped: {error!r}"
            signal.alarm(0)
            path.unlink()
            print("end", number, outcome.replace("\n", " "), flush=True)


def fuzz(count: int, first: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Tags mutated files.

    Returns:
        How many were tagged, refused by a typed error of one line that names the file ("typed"), raised
        anything else ("untyped"), killed their process ("crashed"), or made a decoder print ("printed"); and
        a line on each of the latter three kinds.
    """
    counts: collections.Counter[str] = collections.Counter()
    remarks: list[str] = []
    number, last = first, first + count
    while number < last:
        end = min(last, number + BATCH)
        command = [sys.executable, __file__, "--child", str(number), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        ended = re.findall(r"^end (\d+) (\w+)(.*)$", done.stdout, re.MULTILINE)
        for which, outcome, rest in ended:
            counts[outcome] += 1
            if outcome == "untyped":
                remarks.append(f"{which}: {outcome}{rest}")
        started = re.findall(r"^start (\d+)$", done.stdout, re.MULTILINE)
        number = int(started[-1]) + 1 if started else end
        if len(started) > len(ended):
            counts["crashed"] += 1
            remarks.append(f"{started[-1]}: crashed, return code {done.returncode}: {done.stderr[-300:]}")
        elif done.returncode:
            raise RuntimeError(done.stderr)
        elif done.stderr:
            counts["printed"] += 1
            remarks.append(f"{started[0]} to {started[-1]}: printed {done.stderr[:300]}")
    return counts, remarks


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["--child"]:
        run_child(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--show"]:
        sys.stdout.buffer.write(mutated(int(sys.argv[2]))[1])
    else:
        counts, remarks = fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        print(*remarks, dict(counts), sep="\n")


if __name__ == "__main__":
    main()
