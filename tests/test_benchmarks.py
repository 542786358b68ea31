"""Tests the benchmarks: networks are measured once, both sides do the same work, verdicts follow targets."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import packs, step
from benchmarks.networks import LARGEST, LARGEST_PEAK_MB, PEER, NetworkRow, networks, table
from benchmarks.tables import update
from earmark.data.shards.writer import pack
from earmark.hub.registry import published

ROOT = Path(__file__).resolve().parents[1]


def test_every_published_entry_belongs_to_one_network() -> None:
    entries = [known.name for network in networks() for known in network.entries]
    assert sorted(entries) == sorted(published())


def test_networks_differ_in_more_than_weights() -> None:
    by_name = {network.name: [known.name for known in network.entries] for network in networks()}
    assert by_name[PEER] == ["mn10_as", "mn10_im_pytorch", "mn10_im"]
    assert "dymn20_im" in by_name["dymn20_as"]
    assert len(by_name[LARGEST]) == 10
    for alone in ("mn10_as_hop_5", "mn10_as_mels_40", "mn10_as_fc_s2211", "dymn04_replace_se_as"):
        assert by_name[alone] == [alone]


@pytest.mark.parametrize(("peak_mb", "verdict"), [(LARGEST_PEAK_MB, "met"), (LARGEST_PEAK_MB + 1, "MISSED")])
def test_peak_memory_of_the_largest_network_is_checked(peak_mb: int, verdict: str) -> None:
    row = NetworkRow(
        LARGEST, 10, "mAP 0.4 to 0.5", 68_430_000, None, 273_300_000, peak_mb * 1e6, (0.1, 0.05), (9.5, 8.0)
    )
    shown = table([row])
    assert f"≤ {LARGEST_PEAK_MB} MB: {verdict}" in shown
    cells = [cell.strip() for cell in shown.splitlines()[2].strip("|").split("|")]
    assert cells == [
        "`mn40_as`", "10", "68.43", "", "273.3", f"{peak_mb}", "100.0 ms", "9.50 x", "50.0 ms", "8.00 x",
        "mAP 0.4 to 0.5",
    ]  # fmt: skip


def test_update_replaces_the_text_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- networks -->\nold\n<!-- /networks -->\nb\n", encoding="utf-8")
    update(page, "networks", "new\n")
    assert page.read_text(encoding="utf-8") == "a\n<!-- networks -->\nnew\n<!-- /networks -->\nb\n"
    with pytest.raises(SystemExit, match="no marks"):
        update(page, "jobs", "new\n")


def test_reference_and_earmark_read_the_same_samples(tmp_path: Path) -> None:
    clips = packs.write_clips(tmp_path / "clips", 2)
    pack(clips, tmp_path / "p", packs.SIDES["mp3 in HDF5"])
    for seconds, rate in packs.JOBS.values():
        sides = packs._sides({"mp3 in HDF5": tmp_path / "p"}, seconds, rate)
        reference, ours = (side[1, 5] for side in sides.values())
        assert ours[0].shape == reference.shape == (seconds * rate,)
        torch.testing.assert_close(ours[0], torch.from_numpy(reference), rtol=0, atol=5e-6)


def test_verdicts_on_reading_name_the_jobs_that_miss() -> None:
    lines = [
        packs.PackRow(name, 81.2, (100.0, 300.0, 60.0), ratios, (1.98, 1.2))
        for name, ratios in (("reference", (1, 1, 1)), ("memmap", (4, 4, 2.9)), ("shards", (1.1, 1.1, 1.1)))
    ]
    text = packs.table(lines)
    assert "memmap ≥ 3 x: MISSED for 10 s at 16 kHz; shards > 1 x: met." in text
    assert lines[1].cells()[-3:] == ["1.98 x, 1.20 x", "1600", "30.0"]


def test_a_step_must_be_faster_and_smaller() -> None:
    quick, small, both = (
        step.StepRow(name, 1.0, 1.5, 1300.0, faster, faster, share)
        for name, faster, share in (("quick", 2.6, 0.6), ("small", 2.4, 0.4), ("both", 2.5, 0.5))
    )
    assert "in ≤ 50 % of the memory: MISSED." in step.table([quick, small])
    assert "in ≤ 50 % of the memory: met by both." in step.table([quick, small, both])
    assert small.cells() == ["small", "16.0", "2.40 x", "1.50 s", "2.40 x", "1300", "40 %"]


@pytest.mark.slow
def test_the_largest_network_keeps_to_its_memory_limit(tmp_path: Path) -> None:
    measure = (
        "import sys; from pathlib import Path; from benchmarks.networks import LARGEST, peak_bytes;"
        "print(peak_bytes(Path(sys.argv[1]), LARGEST))"
    )

    def python(*arguments: str) -> str:
        """Runs Python in its own process: this one's memory would count into its children's peak."""
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    python("-m", "benchmarks.prepare", "networks", str(tmp_path), LARGEST)
    peak_mb = float(python("-c", measure, str(tmp_path))) / 1e6
    assert (tmp_path / f"{LARGEST}.onnx").stat().st_size / 1e6 < peak_mb <= LARGEST_PEAK_MB
