"""The notebooks run from start to end, on real clips and with small settings."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = {"EPOCHS": 1, "BATCH_SIZE": 9, "WINDOW_S": 1.0, "CLIPS_PER_CLASS": 1}
"""Of 18 classes and four folds."""


def executed(name: str, folder: Path, **parameters: object):
    """The cells of a notebook after it was run with other parameters."""
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    notebook = jupytext.read(NOTEBOOKS / name)
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    defined: dict[str, object] = {}
    exec(cell.source, defined)
    assert parameters.keys() <= defined.keys()
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cells) -> str:
    return "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")


def pictures(cells) -> int:
    return sum("image/png" in output.get("data", ()) for cell in cells for output in cell.outputs)


@pytest.mark.slow
def test_sounds_are_looked_at(shared, tmp_path):
    recording = NOTEBOOKS.parent / "examples" / "farm.ogg"
    cells = executed("look.py", tmp_path, ESC=str(shared / "data" / "esc18"), RECORDING=str(recording))
    assert pictures(cells) == 4
    assert "576 clips of 18 classes" in printed(cells)
    assert "Dog, " in printed(cells)


@pytest.mark.slow
def test_a_tagger_is_trained_evaluated_and_used(shared, tmp_path):
    esc = shared / "data" / "esc18"
    paths = {
        "ESC": str(esc),
        "RECORDING": str(NOTEBOOKS.parent / "examples" / "farm.ogg"),
        "RECIPE": str(NOTEBOOKS.parent / "recipes" / "fsdkaggle2018" / "tutorial_resnetish18.toml"),
    }
    cells = executed("train.py", tmp_path, **paths, **SMALL)
    text = printed(cells)
    assert "{'train': 54, 'test': 18} clips" in text
    assert pictures(cells) == 2
    assert (tmp_path / "work" / "run" / "fsdkaggle2018_tutorial_resnetish18.onnx").is_file()
    values = dict(line.split() for line in text.splitlines() if line.startswith(("accuracy ", "map_at_3 ")))
    assert 0 <= float(values["accuracy"]) <= float(values["map_at_3"]) <= 1
    assert text.count(" s\n") == 5
