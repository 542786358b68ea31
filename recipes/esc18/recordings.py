"""Cuts clips from recordings in free software packages: doors, engines, animals, voices, weather.

    python recipes/esc18/recordings.py --esc18 DIR --output DIR

``recordings.csv`` beside this script lists packages (Debian's, PyPI's, npm's), files in them, and their
licences: CC0, public domain, CC-BY, MIT, BSD and the like. The first row that matches a file applies; a row
without a licence excludes it. Recordings of which a part occurs in a clip of ESC-50 are excluded too
(lookalikes.py). Needs SciPy and, for Debian's packages, apt-get and dpkg.

Conventions: as in studio.py; pieces follow one another, none longer than studio.SAMPLES, and start and end as
the recording does, so most are shorter.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import packed
import soundfile
import soxr
from lookalikes import SHORTEST, Clips
from studio import RATE, SAMPLES, read_sound, run

from earmark.errors import DataError, EarmarkError
from earmark.model_file.atomic import write_atomically

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("path", "labels", "fold", "kind", "license", "author", "source", "title")
MOST_PIECES = 24  # of one recording, spread over it
REST = RATE // 2  # samples that a long recording's last piece has at least
SILENT_DB = -55.0  # RMS, below which a piece is nothing

Row = dict[str, str]


# --- packages -----------------------------------------------------------------------------------------------


def fetched(row: Row, scratch: Path) -> Path:
    """Downloads and unpacks the package of a row and returns its folder."""
    name, version = row["package"], row["version"]
    folder = scratch / name.replace("/", "_")
    folder.mkdir(parents=True)
    if row["from"] == "debian":
        run("sh", "-c", 'cd "$0" && apt-get download "$1"', str(scratch), f"{name}={version}")
        (archive,) = scratch.glob(f"{name}_*.deb")
        run("dpkg", "-x", str(archive), str(folder))
    elif row["from"] == "pypi":
        run("pip", "download", "--no-deps", "--dest", str(scratch), f"{name}=={version}")
        (archive,) = (path for path in scratch.iterdir() if path.is_file())
        _unpack(archive, folder)
    elif row["from"] == "npm":
        run("npm", "pack", "--pack-destination", str(scratch), f"{name}@{version}")
        (archive,) = scratch.glob("*.tgz")
        _unpack(archive, folder)
    else:
        raise DataError(f"{TABLE.name}: {name} is from {row['from']!r}: write debian, pypi or npm")
    archive.unlink()
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        zipfile.ZipFile(archive).extractall(folder)
    else:
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")


def listed(rows: list[Row], folder: Path) -> Iterator[tuple[Row, str, np.ndarray]]:
    """The recordings that a package's rows list, each once: its row, its name, its samples at RATE."""
    for name, (samples, rate) in packed.recordings(folder, [row["path"] for row in rows]):
        row = next(row for row in rows if fnmatchcase(name, row["path"]))
        if row["license"] and len(samples):
            yield row, name, np.asarray(soxr.resample(samples, rate, RATE))


# --- pieces -------------------------------------------------------------------------------------------------


def pieces(samples: np.ndarray) -> list[np.ndarray]:
    """Cuts a recording into clips: the whole of a short one, MOST_PIECES of a long one; none silent."""
    starts = range(0, max(1, len(samples) - (REST if len(samples) > SAMPLES else 0)), SAMPLES)
    cut = [samples[start : start + SAMPLES] for start in starts]
    audible = [piece for piece in cut if len(piece) >= SHORTEST and level_db(piece) > SILENT_DB]
    if len(audible) > MOST_PIECES:
        audible = [audible[i] for i in np.linspace(0, len(audible) - 1, MOST_PIECES).round().astype(int)]
    return audible


def level_db(samples: np.ndarray) -> float:
    """RMS in dBFS."""
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))


def write_clips(recordings: Iterator[tuple[Row, str, np.ndarray]], known: Clips, out: Path) -> list[list]:
    """Writes the clips of all recordings but those in ``known``; returns the manifest's rows.

    Args:
        recordings: As ``listed`` yields them.
        known: Clips that must not contain any part of a recording.
        out: Folder for the clips.
    """
    rows = list[list]()
    for row, name, samples in recordings:
        cut = pieces(samples)
        near, correlation, clip = known.closest(np.concatenate(cut)) if cut else (-1.0, 0.0, "")
        if near >= 0:
            print(f"left out: {row['package']} {name} occurs in {clip} ({correlation:.3f})")
            continue
        for piece in cut:
            path = f"recording_{len(rows):05d}.flac"
            soundfile.write(out / path, np.clip(piece, -1, 1), RATE, subtype="PCM_16")
            source, title = f"{row['package']} {row['version']}: {name}", Path(name.split("!")[-1]).stem
            rows.append([path, "", 0, "recording", row["license"], row["author"], source, title])
    return rows


def all_listed(packages: Path | None) -> Iterator[tuple[Row, str, np.ndarray]]:
    """The recordings of the whole table, from a folder of unpacked packages or downloaded one by one."""
    with TABLE.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines))
    for package in dict.fromkeys(row["package"] for row in table):
        rows = [row for row in table if row["package"] == package]
        with tempfile.TemporaryDirectory() as scratch:
            folder = packages / package if packages else fetched(rows[0], Path(scratch))
            if not folder.is_dir():
                raise DataError(f"{folder} is missing: unpack {package} there, or leave out --packages")
            yield from listed(rows, folder)


def main() -> int:
    """Writes the clips and their manifest, ``recordings.csv``; returns the exit code."""
    parser = argparse.ArgumentParser(description="Cuts clips from recordings that free software ships.")
    parser.add_argument(
        "--esc18", type=Path, required=True, help="folder with audio/: what has to stay unheard"
    )
    parser.add_argument("--packages", type=Path, help="folder of unpacked packages, instead of downloading")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    try:
        clips = sorted((given.esc18 / "audio").glob("*"))
        if not clips:
            raise DataError(f"{given.esc18 / 'audio'} has no clips: give the folder of the ESC-50 subset")
        known = Clips({clip.name: read_sound(clip) for clip in clips})
        rows = write_clips(all_listed(given.packages), known, given.output)
    except EarmarkError as error:
        print(error, file=sys.stderr)
        return 2
    writer.writerows(rows)
    write_atomically(given.output / "recordings.csv", text.getvalue())
    print(f"{len(rows)} clips and {given.output / 'recordings.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
