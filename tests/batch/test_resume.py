import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyarrow import parquet

from earmark.batch import resume
from earmark.batch.resume import Archive, open_archive
from earmark.batch.tables import FILES, TableInfo, schema
from earmark.errors import DataError

INFO = TableInfo("tags", "toy", {"window_s": 0.5, "top": None})


def schemas(info: TableInfo = INFO) -> dict:
    return {table: schema(table, info) for table in ("tags", FILES)}


def rows(path: str) -> dict:
    tags = [
        {"path": path, "label": label, "score": 0.5, "start_s": 0.0, "end_s": 1.0}
        for label in ("tone", "noise")
    ]
    file = {"path": path, "size": 1, "mtime": 2, "duration_s": 1.0, "sample_rate": 8000, "status": "ok"}
    return {"tags": tags, FILES: [{**file, "error": None, "model": "toy", "warnings": []}]}


def add(archive: Archive, paths: Sequence[str]) -> None:
    for path in paths:
        archive.add(rows(path))


def paths_in(folder: Path, table: str) -> list[str]:
    return parquet.read_table(folder / table).column("path").to_pylist()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "GROUP", 2)
    monkeypatch.setattr(resume, "GROUP_S", 1e9)


def test_tables_are_those_that_were_added(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with open_archive(folder, schemas()) as archive:
        add(archive, ["a", "b", "c"])
        archive.finish()
    assert paths_in(folder, FILES) == ["a", "b", "c"]
    assert paths_in(folder, "tags") == ["a", "a", "b", "b", "c", "c"]
    for table in ("tags", FILES):
        assert (
            TableInfo.from_metadata(parquet.read_schema(folder / table / "part-00000.parquet").metadata)
            == INFO
        )
    assert sorted(path.name for path in folder.iterdir()) == ["files", "tags"]


def test_an_archive_without_recordings_has_tables(tmp_path: Path) -> None:
    with open_archive(tmp_path, schemas()) as archive:
        archive.finish()
    assert paths_in(tmp_path, FILES) == paths_in(tmp_path, "tags") == []


def test_many_rows_become_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SHARD_BYTES", 1)
    with open_archive(tmp_path, schemas()) as archive:
        add(archive, list("abcde"))
        archive.finish()
    assert len(list((tmp_path / "tags").iterdir())) == 3
    assert paths_in(tmp_path, FILES) == list("abcde")


def test_a_run_that_was_cut_off_anywhere_goes_on(tmp_path: Path) -> None:
    """Whatever of the streams reached the disk, no row is lost or doubled."""
    whole = tmp_path / "whole"
    with open_archive(whole, schemas()) as archive:
        add(archive, list("abcdef"))
    streams = {table: whole / resume.UNFINISHED / f"00000.{table}.arrows" for table in ("tags", FILES)}
    size = streams[FILES].stat().st_size
    seen = set()
    for number, length in enumerate([*range(0, size, 211), size]):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        with (folder / streams[FILES].relative_to(whole)).open("r+b") as file:
            file.truncate(length)
        with open_archive(folder, schemas(), resume=True) as archive:
            left = [path for path in "abcdef" if not archive.is_done(path)]
            assert archive.already_done == 6 - len(left)
            add(archive, left)
            archive.finish()
        assert paths_in(folder, FILES) == list("abcdef")
        assert paths_in(folder, "tags") == sorted("abcdef" * 2)
        seen.add(len(left))
    assert seen == {0, 2, 4, 6}


@pytest.mark.parametrize("table", ["tags", FILES])
def test_a_run_that_was_cut_off_between_the_files_of_a_part_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """A full disk, or the end of the process, while Parquet files are written."""
    write, written = parquet.write_table, []

    def full(content, stream, **options) -> None:
        written.append(stream)
        if len(written) == {"tags": 1, FILES: 2}[table]:
            raise OSError(28, "No space left on device")
        write(content, stream, **options)

    monkeypatch.setattr(parquet, "write_table", full)
    with open_archive(tmp_path, schemas()) as archive:
        add(archive, list("abc"))
        with pytest.raises(OSError, match="No space left"):
            archive.finish()
    with open_archive(tmp_path, schemas(), resume=True) as archive:
        assert archive.already_done == 3
        add(archive, ["d"])
        archive.finish()
    assert paths_in(tmp_path, FILES) == list("abcd")
    assert paths_in(tmp_path, "tags") == sorted("abcd" * 2)


def test_tables_that_are_there_are_not_touched_unasked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with open_archive(tmp_path, schemas()) as archive:
        add(archive, list("ab"))
        archive.finish()
    with (
        pytest.raises(DataError, match="--resume, replace it with --force"),
        open_archive(tmp_path, schemas()),
    ):
        pass
    other = TableInfo("tags", "toy", {"window_s": 2, "top": None})
    refused = r"window_s was 0\.5, is now 2: use the same ones"
    with pytest.raises(DataError, match=refused), open_archive(tmp_path, schemas(other), resume=True):
        pass
    assert paths_in(tmp_path, FILES) == list("ab")
    with open_archive(tmp_path, schemas(other), force=True) as archive:
        add(archive, ["c"])
        archive.finish()
    assert paths_in(tmp_path, FILES) == ["c"]
    assert (tmp_path / "notes.txt").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    in_use = pytest.raises(DataError, match="is in use")
    with open_archive(tmp_path, schemas()), in_use, open_archive(tmp_path, schemas()):
        pass


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / FILES).mkdir()
    (tmp_path / FILES / "part-00000.parquet").write_bytes(b"PAR1 nothing")
    damaged = pytest.raises(DataError, match=r"part-00000\.parquet: is not a table")
    with damaged, open_archive(tmp_path, schemas(), resume=True):
        pass
