"""The complete examples of docs/contributing: a network, a corpus and a recipe are added, trained and used.

Each page names its files (`FILE`: before a fence) and has commands in fences marked ``sh``; they run in a new
folder, in processes of their own, since they register names.
"""

import os
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import refresh

from earmark.model_file.onnx_file import read_info

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


@pytest.fixture
def follow(tmp_path: Path) -> Callable[[str], str]:
    """Does what a page says; returns what its commands print."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}

    def follow(page: str) -> str:
        text = (ROOT / "docs" / "contributing" / page).read_text(encoding="utf-8")
        for name, content in FILE.findall(text):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        [commands, *_] = refresh.fences(text, "sh")
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return follow


def test_a_network_is_registered_trained_exported_and_tags(follow, tmp_path: Path) -> None:
    printed = follow("add-a-network.md")
    trained = read_info(tmp_path / "runs" / "two_convolutions" / "two_convolutions.onnx")
    assert trained.architecture == "two_convolutions"
    assert trained.arguments["width"] == 8
    assert trained.labels == ("farm", "siren_and_bell")
    assert read_info(tmp_path / "two_convolutions.onnx").graph_input == "waveform"
    assert "examples/farm.ogg" in printed


def test_a_corpus_is_read_trained_on_and_evaluated(follow, tmp_path: Path) -> None:
    printed = follow("add-a-corpus.md")
    assert read_info(tmp_path / "runs" / "garden" / "garden.onnx").labels == ("farm", "siren_and_bell")
    assert "map_macro" in printed


def test_a_recipe_is_checked_trained_and_extended(follow, tmp_path: Path) -> None:
    printed = follow("add-a-recipe.md")
    assert "noise_snr_db = 20" in printed
    assert (tmp_path / "runs" / "farm_mn01" / "farm_mn01.onnx").is_file()
    assert not (tmp_path / "runs" / "farm_mn01_noise").exists(), "a dry run writes nothing"
