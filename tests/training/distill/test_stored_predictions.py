"""Stored predictions are found by clip id in every format; errors are one line."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from earmark.errors import DataError
from earmark.model_file.labels import label_set
from earmark.training.distill.clip_index import read_index
from earmark.training.distill.stored_predictions import (
    PredictionsHeader,
    StoredPredictions,
    column_order,
    serialize,
    sha256_of,
)

HEADING = PredictionsHeader(
    ("dog", "rain"), "logits", "multi_label", ({"name": "big", "sha256": "0" * 64},), ("a",)
)
ATTACK = Path(__file__).with_name("attack")
VALUES = np.array([[1, -2], [0.5, 70000], [3, 4]], np.float32)


def write(path: Path, ids=("x", "y", "z"), values=VALUES, heading=HEADING) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(serialize(heading, ids, values))
    return path


def read(outputs: StoredPredictions, *ids: str) -> list[list[float]]:
    return outputs.read(outputs.find(ids)).tolist()


def test_a_file_returns_stored_predictions_and_nan_for_other_clips(tmp_path):
    outputs = StoredPredictions(write(tmp_path / "a.npz"))
    assert outputs.header == HEADING
    assert len(outputs) == 3
    assert outputs.find(["z", "other"]).tolist() == [2, -1]
    [known, unknown] = outputs.read(np.array([1, -1]))
    assert known.tolist() == [0.5, 65504]  # the largest that half precision has
    assert known.dtype == np.float32
    assert np.isnan(unknown).all()


def test_predictions_are_read_from_disk_on_demand(tmp_path):
    [table] = StoredPredictions(write(tmp_path / "a.npz"))._tables
    assert isinstance(table, np.memmap)
    assert table.dtype == np.float16


def test_shards_are_one(tmp_path):
    write(tmp_path / "s" / "shard_00000.npz", ["x", "y"], VALUES[:2])
    write(tmp_path / "s" / "shard_00001.npz", [], VALUES[:0])
    write(tmp_path / "s" / "shard_00003.npz", ["z"], VALUES[2:])
    outputs = StoredPredictions(tmp_path / "s")
    assert read(outputs, "z", "x", "y") == [[3, 4], [1, -2], [0.5, 65504]]


def test_equal_predictions_make_equal_files(tmp_path):
    assert serialize(HEADING, ["x"], VALUES[:1]) == serialize(HEADING, ["x"], VALUES[:1])
    path = write(tmp_path / "a.npz")
    assert sha256_of([path, path]) != sha256_of([path])


def compressed() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, ids=["x"], answers=VALUES[:1], heading=HEADING.to_json())
    return stream.getvalue()


def with_heading(**changes: object) -> bytes:
    stream = io.BytesIO()
    heading = json.dumps(json.loads(HEADING.to_json()) | changes)
    np.savez(stream, ids=["x"], answers=VALUES[:1], heading=heading)
    return stream.getvalue()


WHOLE = serialize(HEADING, ["x", "y", "z"], VALUES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a complete file"),
        (b"", "not a complete file"),
        (WHOLE[:-30], "not a complete file"),
        (serialize(HEADING, ["x"], VALUES), r"shape \(3, 2\), not \(1, 2\)"),
        (compressed(), "compressed"),
        (with_heading(version=2), "another version"),
        (with_heading(labels=["dog", "dog"]), "label is repeated"),
        (with_heading(kind="feelings"), "neither logits nor scores"),
        (with_heading(mood="good"), "unexpected keyword argument 'mood'"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        StoredPredictions(path)


def test_pickled_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.array(["x"], object), answers=VALUES[:1], heading=HEADING.to_json())
    with pytest.raises(DataError):
        StoredPredictions(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["short", "huge", "deep"])
def test_headers_that_do_not_fit_are_refused(name):
    """Of arrays shorter than their header says, of 40 TB, and nested 9,000 times."""
    with pytest.raises(DataError, match="is not a complete file of earmark teach") as caught:
        StoredPredictions(ATTACK / f"{name}.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [0x110000, 0xD800])
def test_ids_that_are_no_text_are_refused(tmp_path, code):
    ids = np.array([code, ord("y"), ord("z")], "<u4").view("<U1")
    np.savez(tmp_path / "a.npz", ids=ids, answers=VALUES, heading=np.array(HEADING.to_json()))
    with pytest.raises(DataError, match="not valid Unicode"):
        StoredPredictions(tmp_path / "a.npz")


def test_columns_first_are_read_as_they_are_meant():
    outputs = StoredPredictions(ATTACK / "fortran.npz")
    assert read(outputs, "x", "y") == [[1, 3], [2, 4]]


def test_predictions_that_are_not_finite_are_refused(tmp_path):
    outputs = StoredPredictions(write(tmp_path / "a.npz", values=VALUES * np.array([[1], [np.nan], [1]])))
    assert read(outputs, "x", "other")[0] == [1, -2]
    with pytest.raises(DataError, match="NaN"):
        read(outputs, "x", "y")


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(DataError):
        StoredPredictions(tmp_path)
    write(tmp_path / "s" / "shard_00000.npz")
    second = tmp_path / "s" / "shard_00001.npz"
    write(second, ["z"], VALUES[2:])
    with pytest.raises(DataError):
        StoredPredictions(tmp_path / "s")
    other = PredictionsHeader(("dog", "cat"), "logits", "multi_label", HEADING.teachers)
    write(second, ["v"], VALUES[2:], other)
    with pytest.raises(DataError):
        StoredPredictions(tmp_path / "s")


def test_predictions_of_another_corpus_are_refused(tmp_path):
    outputs = StoredPredictions(write(tmp_path / "a.npz"))
    rows, missing = outputs.require_rows(["y", "q", "r"])
    assert (rows.tolist(), missing) == ([1, -1, -1], 2)
    with pytest.raises(DataError):
        outputs.require_rows(["q", "r"])


def test_labels_are_put_in_the_runs_order_or_counted():
    assert column_order(["a", "b", "c"], ["c", "a", "b"], "big") == [2, 0, 1]
    with pytest.raises(DataError) as refused:
        column_order(["a", "b", "x", "y"], ["c", "a", "b"], "big")
    assert "1 of the run's 3 labels are not its own ('c')" in str(refused.value)
    assert "2 of the teacher's 4 labels are not the run's ('x', 'y')" in str(refused.value)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


class TestPublished:
    """The files of the PaSST ensemble, in small."""

    @pytest.fixture(params=[np.float16, np.float32])
    def table(self, request) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((4, 527)).astype(request.param)

    @pytest.fixture
    def path(self, tmp_path, table) -> Path:
        path = tmp_path / "passt_enemble_logits_mAP_495.npy"
        np.save(path, table)
        (tmp_path / "fname_to_index.pkl").write_bytes(pickle.dumps({"aa": 3, "bb": 0}))
        return path

    def test_rows_by_name(self, path, table):
        outputs = StoredPredictions(path)
        assert outputs.header.labels == label_set("audioset")
        assert (outputs.header.kind, outputs.header.task) == ("logits", "multi_label")
        np.testing.assert_array_equal(
            outputs.read(outputs.find(["bb", "aa"])), table[[0, 3]].astype(np.float32)
        )
        assert isinstance(outputs._tables[0], np.memmap)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_pickle_of_a_table_is_read(self, tmp_path, protocol):
        table = {f"clip {number}": number**4 for number in range(2000)}
        (tmp_path / "i.pkl").write_bytes(pickle.dumps(table, protocol))
        assert read_index(tmp_path / "i.pkl") == table

    @pytest.mark.parametrize(
        ("name", "content"),
        [("i.json", b'{"aa": 3, "bb": 0}'), ("i.csv", b"name,row\naa,3\nbb,0\n")],
    )
    def test_other_forms_of_the_index(self, path, name, content):
        index = path.with_name(name)
        index.write_bytes(content)
        assert StoredPredictions(path, index=index).find(["aa", "bb"]).tolist() == [3, 0]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("i.pkl", pickle.dumps({"aa": Evil()}), "refers to builtins.print"),
            ("i.pkl", pickle.dumps({"aa": np.int64(3)}), "refers to numpy"),
            ("i.pkl", pickle.dumps({"aa": 3})[:-3], "plain mapping"),
            ("i.pkl", b"", "plain mapping"),
            ("i.pkl", pickle.dumps(["aa"]), "must be a mapping"),
            ("i.pkl", pickle.dumps({"aa": 2.0}), "got 'aa' -> 2.0"),
            ("i.pkl", pickle.dumps({"aa": 4, "bb": 9}), "2 of 2 rows, first 'aa'"),
            ("i.json", b"{", "not valid JSON"),
            ("i.json", b'{"aa": 0, "bb": 1, "aa": 2}', "'aa' is repeated"),
            ("i.json", b'{"aa": NaN}', "NaN"),
            ("i.json", b'{"aa":' * 100_000, "nested too deeply"),
            ("i.csv", b"name,row\naa,0\nbb,1\naa,2\n", "line 4: the name 'aa' is repeated"),
            ("i.csv", b"name,row\naa,0\nbb\n", "line 3: must have 2 fields"),
            ("i.csv", b"name,row\naa,0\nbb,", "line 3"),
            ("i.csv", b"name,row\naa,x\n", "line 2: must hold a name and a row"),
        ],
    )
    def test_an_index_that_cannot_be_used_is_one_line(self, path, name, content, message, capsys):
        index = path.with_name(name)
        index.write_bytes(content)
        with pytest.raises(DataError, match=message):
            StoredPredictions(path, index=index)
        assert capsys.readouterr().out == "", "the pickle was executed"

    def test_a_missing_index_is_named(self, path):
        path.with_name("fname_to_index.pkl").unlink()
        with pytest.raises(DataError):
            StoredPredictions(path)

    @pytest.mark.parametrize(
        "wrong", [np.zeros((4, 526), np.float16), np.zeros(527, np.float16), np.zeros((4, 527), int)]
    )
    def test_another_table_is_refused(self, path, wrong):
        np.save(path, wrong)
        with pytest.raises(DataError):
            StoredPredictions(path)

    def test_pickled_or_damaged_tables_are_refused(self, path):
        np.save(path, np.array([{}], object))
        with pytest.raises(DataError):
            StoredPredictions(path)
        path.write_bytes(b"\x93NUMPY\x01")
        with pytest.raises(DataError):
            StoredPredictions(path)

    def test_its_keys_are_not_for_other_files(self, tmp_path):
        with pytest.raises(DataError):
            StoredPredictions(write(tmp_path / "a.npz"), labels="audioset")


def test_the_archive_is_an_ordinary_one(tmp_path):
    with np.load(write(tmp_path / "a.npz"), allow_pickle=False) as stored:
        assert set(stored) == {"ids", "answers", "heading"}
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
