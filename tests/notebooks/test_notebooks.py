"""The notebooks run from start to end, on real clips, and what they find is what they say."""

import json
import re
from pathlib import Path

import pytest

from earmark.hub.pull import pull

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.py"))
RECORDING = str(NOTEBOOKS.parent / "examples" / "farm.ogg")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tests run side by side: threads that wait for each other take the time of both cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def esc(shared) -> str:
    return str(shared / "data" / "esc18")


def executed(name: str, folder: Path, facts: str, **parameters: object):
    """Runs a notebook with other parameters, from a folder of its own.

    Returns the value of the expression ``facts`` after the last cell, and the number of pictures.
    """
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = jupytext.read(NOTEBOOKS / name)
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    defined: dict[str, object] = {}
    exec(cell.source, defined)
    assert parameters.keys() <= defined.keys()
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    last = jupytext.reads(f"# %%\nimport json\nprint(json.dumps({facts}))", fmt="py:percent").cells
    notebook.cells += last
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", ()) for output in outputs)
    return json.loads("".join(output.text for output in last[0].outputs)), pictures


def test_readme_lists_every_notebook():
    listed = re.findall(
        r"^\| \[(\w+\.py)\]\(\1\)", (NOTEBOOKS / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(listed) == NAMES
    assert (
        not list(NOTEBOOKS.glob("*.ipynb"))
        or "notebooks/*.ipynb" in (NOTEBOOKS.parent / ".gitignore").read_text()
    )


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (NOTEBOOKS / name).read_text("utf-8"))
    assert links
    assert [link for link in links if not (NOTEBOOKS / link).is_file()] == []


@pytest.mark.slow
def test_sounds_are_looked_at(tmp_path):
    facts = (
        "dict(labels=[tag.label for tag in result.detected], among=float(among_dogs),"
        " across=float(similarity[np.ix_(dogs, thunder)].mean()),"
        " dogs=[[event.start_s, event.end_s] for event in events if event.label == 'Dog'])"
    )
    found, pictures = executed("look.py", tmp_path, facts, RECORDING=RECORDING)
    assert {"Dog", "Chicken, rooster", "Thunder"} <= {*found["labels"]}
    assert all(9 <= start_s < end_s <= 21 for start_s, end_s in found["dogs"])
    assert found["dogs"]
    assert found["among"] > 0.4 > 0 > found["across"]
    assert pictures == 5


@pytest.mark.slow
def test_own_sounds_are_fitted_reviewed_and_found(esc, tmp_path):
    facts = (
        "dict(first=first, second=second, heard=int(review.heard.sum()), unsorted=review.num_unsorted,"
        " precision=float(threshold.precision),"
        " events=[event.label for event in result.events(threshold='auto')])"
    )
    found, pictures = executed("own_sounds.py", tmp_path, facts, ESC=esc)
    for shares in (found["first"], found["second"]):
        false = shares.pop("false")
        assert false <= 0.1
        assert sum(shares.values()) / len(shares) >= 0.85
    assert 2 <= found["heard"] <= 14
    assert found["unsorted"] == 0
    assert found["precision"] >= 0.9
    assert {"rain", "sea_waves", "crackling_fire"} <= {*found["events"]}
    assert (tmp_path / "work" / "own_sounds" / "report" / "index.html").is_file()
    assert pictures == 1


@pytest.mark.slow
def test_a_network_is_fine_tuned_and_calibrated(shared, esc, tmp_path):
    pull("mn04_as", file=shared / "teachers" / "mn04_as_mAP_432.pt")
    facts = (
        "dict(overall=dict(found.overall), before=dict(metrics.before), after=dict(metrics.after),"
        " precision=float(precision), calibrated=result.calibrated)"
    )
    found, pictures = executed("fine_tune.py", tmp_path, facts, ESC=esc)
    assert found["overall"]["clips"] == 144
    assert found["overall"]["accuracy"] >= 0.85
    for name in ("log_loss", "expected_calibration_error"):
        assert found["after"][name] < found["before"][name]
    assert found["precision"] >= 0.8
    assert found["calibrated"]
    assert pictures == 3


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_and_is_compressed(esc, tmp_path):
    facts = "dict(alone=alone, taught=taught, teacher=teacher_accuracy, rows=rows, precision=info.precision)"
    found, pictures = executed("distil.py", tmp_path, facts, ESC=esc)
    assert found["teacher"] >= 0.9
    assert found["taught"]["clips"] == 48
    assert found["taught"]["accuracy"] >= 0.35
    assert found["taught"]["log_loss"] < found["alone"]["log_loss"]
    sizes = {name: size for name, (size, _, _) in found["rows"].items()}
    assert sizes["taught_fp16"] < sizes["taught_int8"] < sizes["taught"] < 0.2 * sizes["teacher"]
    accuracies = {name: accuracy for name, (_, _, accuracy) in found["rows"].items()}
    assert accuracies["taught"] == pytest.approx(found["taught"]["accuracy"])
    assert accuracies["taught_fp16"] == pytest.approx(accuracies["taught"], abs=0.03)
    assert accuracies["taught_int8"] >= accuracies["taught"] - 0.1
    assert found["precision"] == "int8"
    assert pictures == 1


@pytest.mark.slow
def test_an_archive_is_searched_and_mapped(esc, tmp_path):
    facts = (
        "dict(precision=float(right.mean()), few=float(np.mean(accuracies)), clips=len(clips),"
        " places=places.shape)"
    )
    found, pictures = executed("similarity.py", tmp_path, facts, ESC=esc)
    assert found["clips"] == 144
    assert found["places"] == [144, 2]
    assert found["precision"] >= 0.9
    assert found["few"] >= 0.93
    assert (tmp_path / "work" / "similarity" / "embeddings.parquet").is_file()
    assert pictures == 2


@pytest.mark.slow
def test_networks_are_compared(tmp_path):
    facts = (
        "dict(ratios=ratios, share=front_end_share,"
        " bytes={name: path.stat().st_size for name, path in files.items()})"
    )
    found, pictures = executed("zoo.py", tmp_path, facts)
    assert found["bytes"]["mn01_as"] < found["bytes"]["mn04_as"] < found["bytes"]["mn10_as"]
    assert found["ratios"]["mn10_as"] == 1
    assert found["ratios"]["mn01_as"] < 0.9 < 1.2 < found["ratios"]["dymn10_as"]
    assert 0 < found["share"] < found["ratios"]["mn01_as"]
    assert "mn05_open" in found["ratios"]
    assert pictures == 2


@pytest.mark.slow
def test_a_tagger_is_trained_evaluated_and_used(esc, tmp_path):
    recipe = NOTEBOOKS.parent / "recipes" / "esc18" / "scratch_mn01.toml"
    facts = "dict(overall=dict(found.overall), confusion=found.confusion.tolist(), tags=len(result.tags))"
    found, pictures = executed("train.py", tmp_path, facts, ESC=esc, RECORDING=RECORDING, RECIPE=str(recipe))
    assert sum(map(sum, found["confusion"])) == found["overall"]["clips"] == 48
    assert 0.4 <= found["overall"]["accuracy"] <= found["overall"]["map_at_3"] <= 1
    assert found["tags"] == 6
    assert pictures == 2
