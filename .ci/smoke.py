"""Smoke test of the base install, run by its Python from a folder without the sources.

    python smoke.py EXAMPLE SHARED

EXAMPLE is the example recording, SHARED a folder of real recordings, which may be absent.
"""

import csv
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

BASE_LIMIT_MB = 300
NOT_OURS = {"pip", "setuptools", "_distutils_hack", "pkg_resources"}  # installed with the virtual environment
ABSENT = ("torch", "onnx", "onnxscript", "safetensors", "scipy", "pytest")
ESC18_STEP = 16  # of 576 clips: 36, two of each class
ESC18_MIN_SHARE = 0.8  # most clips were trained on, so this is a sanity check, not a score
PUBLISHED_FILE, PUBLISHED_CLIP = "mn04_as_mAP_432.pt", "metro_station-paris.wav"
PUBLISHED_SCORES = {"Train": 0.727, "Rail transport": 0.578, "Subway, metro, underground": 0.493}
PUBLISHED_SCORES |= {"Railroad car, train wagon": 0.560}  # by the code of its authors

# Runs the command line; any use of the network is an error.
OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        raise AssertionError(f"the network was used: {event} {arguments}")
sys.addaudithook(refuse)
from earmark.cli import main
main(sys.argv[1:])
"""


def earmark(*arguments: object) -> str:
    """Runs a command and returns its standard output; fails on anything on standard error."""
    command = [sys.executable, "-W", "error", "-c", OFFLINE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode or done.stderr:
        sys.exit(
            f"earmark {' '.join(map(str, arguments))}: code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def tag(*arguments: object) -> list[dict[str, Any]]:
    """Runs ``earmark tag`` and returns its JSON results."""
    return list(json.loads(earmark("tag", "--format", "json", *arguments)))


def on_disk(status: os.stat_result) -> int:
    """Bytes that a file takes; on Windows, which does not say, its size."""
    return int(status.st_blocks * 512) if hasattr(status, "st_blocks") else status.st_size


def check_install() -> None:
    """Checks that no package of the extras is installed, and the size on disk."""
    present = [name for name in ABSENT if importlib.util.find_spec(name)]
    if present:
        sys.exit(f"the base install contains {present}")
    folder = Path(sysconfig.get_path("platlib"))
    files = [
        path for path in folder.rglob("*") if path.relative_to(folder).parts[0].split("-")[0] not in NOT_OURS
    ]
    size_mb = sum(on_disk(path.stat()) for path in files) / 1e6
    count = len(list(importlib.metadata.distributions()))
    print(f"base install: {size_mb:.0f} MB on disk, {count} distributions")
    if size_mb > BASE_LIMIT_MB and sys.platform == "linux":  # whose wheels the limit was set for
        sys.exit(f"the base install must be at most {BASE_LIMIT_MB} MB")


def check_example(example: Path) -> None:
    """Checks the tags of the example in every format, and that models and info work."""
    print(earmark("tag", example))
    [result] = tag(example)
    found = [entry["label"].casefold() for entry in result["tags"][:3]]
    if "dog" not in found:
        sys.exit(f"the first three tags of the example are {found}")
    for form, start in (("jsonl", '{"path"'), ("csv", "path,label,score,start_s,end_s,calibrated\n")):
        if not earmark("tag", example, "--format", form).startswith(start):
            sys.exit(f"--format {form} does not start with {start!r}")
    print(earmark("models"))
    print(earmark("info").split("\n## ")[0])


def check_real_recordings(shared: Path) -> None:
    """Tags recordings from elsewhere, and checks the tags of clips of esc18 whose class is a label."""
    if not shared.is_dir():
        print("no folder of real recordings beside the project: skipped")
        return
    print(earmark("tag", shared / "data" / "demo", "--top", 3))
    with (shared / "data" / "esc18" / "meta.csv").open(encoding="utf-8", newline="") as lines:
        truth = {row["filename"]: row["category"] for row in csv.DictReader(lines)}
    labels = {label.casefold() for label in json.loads(earmark("info", "--json"))["labels"]}
    by_class = sorted(truth, key=lambda name: (truth[name], name))[::ESC18_STEP]
    clips = [name for name in by_class if truth[name] in labels]
    results = tag("--top", 10, *(shared / "data" / "esc18" / "audio" / name for name in clips))
    right = sum(
        truth[Path(result["path"]).name] in [entry["label"].casefold() for entry in result["tags"]]
        for result in results
    )
    print(f"esc18: {right} of {len(clips)} clips have their class among ten tags")
    if not clips or len(results) != len(clips) or right < ESC18_MIN_SHARE * len(clips):
        sys.exit(f"less than {ESC18_MIN_SHARE:.0%} of the clips")


def check_published_weights(shared: Path) -> None:
    """Makes a model file of published weights and tags with it."""
    weights, clip = shared / "teachers" / PUBLISHED_FILE, shared / "data" / "demo" / PUBLISHED_CLIP
    if not weights.is_file():
        print("no published weights beside the project: skipped")
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EARMARK_CACHE"] = cache
        print(earmark("pull", "mn04_as", "--from", weights))
        [result] = tag("--model", "mn04_as", "--top", len(PUBLISHED_SCORES), clip)
        if "* mn04_as " not in earmark("models"):
            sys.exit("earmark models does not show that mn04_as is here")
    scores = {entry["label"]: round(entry["score"], 3) for entry in result["tags"]}
    print(f"mn04_as: {scores}")
    if any(abs(scores.get(label, 0) - score) > 0.001 for label, score in PUBLISHED_SCORES.items()):
        sys.exit(f"the scores of mn04_as must be {PUBLISHED_SCORES}")


if __name__ == "__main__":
    check_install()
    check_example(Path(sys.argv[1]))
    check_real_recordings(Path(sys.argv[2]))
    check_published_weights(Path(sys.argv[2]))
