"""Search in archives, against NumPy on all rows at once."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from earmark.batch.tables import TableInfo, embedding_rows, schema, tag_rows, to_table
from earmark.errors import DataError
from earmark.inference.result import Tag
from earmark.search import Condition, EmbeddingArchive, EmbeddingIndex, Filters, Hit, most_similar
from earmark.search import archive as archive_module

CHANNELS, RECORDINGS, WINDOWS = 8, 12, 5
INFO = TableInfo("embeddings", "toy")
VECTORS = np.random.default_rng(3).normal(size=(RECORDINGS, WINDOWS, CHANNELS)).astype(np.float32)
SPANS = [(float(number), number + 1.0) for number in range(WINDOWS)]


def path_of(recording: int) -> str:
    return f"yard/{recording:02d}.wav" if recording % 2 else f"kitchen/{recording:02d}.wav"


def write(folder: Path, name: str, table: pyarrow.Table) -> None:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    parquet.write_table(table, folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive of two shards: recording ``n`` lasts ``n`` seconds, window 1 of odd ones is a dog."""
    form = schema("embeddings", INFO, CHANNELS)
    for shard, part in enumerate((range(7), range(7, RECORDINGS))):
        rows = [row for one in part for row in embedding_rows(path_of(one), SPANS, VECTORS[one])]
        write(tmp_path, f"embeddings/{shard}.parquet", to_table(rows, form))
    modified = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    files = [
        {"path": path_of(one), "duration_s": float(one), "status": "ok", "model": "toy", "warnings": []}
        | {"mtime": modified + datetime.timedelta(days=one)}
        for one in range(RECORDINGS)
    ]
    write(tmp_path, "files/0.parquet", to_table(files, schema("files", INFO)))
    tags = [
        row for one in range(1, RECORDINGS, 2) for row in tag_rows(path_of(one), [Tag("Dog", 0.9, 1.2, 1.8)])
    ]
    write(tmp_path, "tags/0.parquet", to_table(tags, schema("tags", TableInfo("tags", "toy"))))
    return tmp_path


def oracle(query: np.ndarray, top: int, keep: np.ndarray | None = None) -> list[tuple[str, float, float]]:
    """Path, start and similarity of the best rows."""
    scores = VECTORS @ query / np.linalg.norm(VECTORS, axis=-1) / np.linalg.norm(query)
    scores = np.where(np.ones_like(scores, bool) if keep is None else keep, scores, -2)
    order = np.dstack(np.unravel_index(np.argsort(-scores, axis=None), scores.shape))[0][:top]
    return [(path_of(one), SPANS[window][0], float(scores[one, window])) for one, window in order]


def found(hits: list[Hit]) -> list[tuple[str, float, float]]:
    return [(hit.path, hit.start_s, pytest.approx(hit.similarity, abs=1e-5)) for hit in hits]


@pytest.mark.parametrize("batch_bytes", [1, 4 * CHANNELS * 7, 1 << 20])
def test_rows_are_ranked_as_all_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr(archive_module, "BATCH_BYTES", batch_bytes)
    query = VECTORS[4, 2] + 0.5
    hits = most_similar(query, EmbeddingArchive(folder), 9, every_window=True)
    assert oracle(query, 9) == found(hits)


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_each_recording_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int) -> None:
    monkeypatch.setattr(archive_module, "BATCH_BYTES", batch_bytes)
    hits = most_similar(VECTORS[4, 2], EmbeddingArchive(folder), RECORDINGS + 5)
    assert hits[0] == ("kitchen/04.wav", 2.0, 3.0) or hits[0][1:] == ("kitchen/04.wav", 2.0, 3.0)
    assert hits[0].similarity == pytest.approx(1, abs=1e-6)
    assert sorted(hit.path for hit in hits) == sorted(map(path_of, range(RECORDINGS)))
    every = oracle(VECTORS[4, 2], RECORDINGS * WINDOWS)
    best = {path: score for path, _, score in reversed(every)}
    assert [best[hit.path] for hit in hits] == pytest.approx([hit.similarity for hit in hits], abs=1e-5)


def test_conditions_and_labels_restrict_the_rows(folder: Path) -> None:
    archive, query = EmbeddingArchive(folder), VECTORS[0, 0]
    numbers = np.arange(RECORDINGS)[:, None] * np.ones(WINDOWS, int)
    windows = np.ones((RECORDINGS, 1), int) * np.arange(WINDOWS)

    def search(*conditions: str, labels: tuple[str, ...] = ()) -> list[tuple[str, float, float]]:
        filters = Filters(labels, list(map(Condition.parse, conditions)))
        return found(most_similar(query, archive, 100, filters=filters, every_window=True))

    def expected(keep: np.ndarray) -> list[tuple[str, float, float]]:
        return oracle(query, int(keep.sum()), keep)

    assert search("duration_s>=5") == expected(numbers >= 5)
    assert search("path~yard", "start_s<2") == expected((numbers % 2 == 1) & (windows < 2))
    assert search("mtime<2026-01-04T00:00:00Z") == expected(numbers < 3)
    assert search(labels=("Dog", "Cat")) == expected((numbers % 2 == 1) & (windows == 1))
    assert search("duration_s<4", labels=("Dog",)) == expected(
        (numbers % 2 == 1) & (windows == 1) & (numbers < 4)
    )
    assert search(labels=("Cat",)) == []


def test_an_index_finds_what_the_exact_search_finds(folder: Path) -> None:
    archive = EmbeddingArchive(folder)
    for query in VECTORS[:3, 1]:
        for every_window in (False, True):
            exact = most_similar(query, archive, 4, every_window=every_window)
            assert EmbeddingIndex(archive).most_similar(query, 4, every_window=every_window) == exact
    assert len(EmbeddingIndex(archive).most_similar(VECTORS[0, 0], 100)) == RECORDINGS


def test_an_index_follows_its_archive(folder: Path) -> None:
    EmbeddingIndex(EmbeddingArchive(folder))
    rows = embedding_rows("new.wav", SPANS[:1], np.ones((1, CHANNELS), np.float32))
    write(folder, "embeddings/2.parquet", to_table(rows, schema("embeddings", INFO, CHANNELS)))
    hit = EmbeddingIndex(EmbeddingArchive(folder)).most_similar(np.ones(CHANNELS), 1)[0]
    assert hit.path == "new.wav"


def test_rows_without_numbers_are_never_similar(tmp_path: Path) -> None:
    vectors = np.array([[np.nan] * CHANNELS, [0.0] * CHANNELS, [1.0] * CHANNELS], np.float32)
    rows = embedding_rows("a.wav", SPANS[:3], vectors)
    write(tmp_path, "embeddings/0.parquet", to_table(rows, schema("embeddings", INFO, CHANNELS)))
    hits = most_similar(np.ones(CHANNELS), EmbeddingArchive(tmp_path), 3, every_window=True)
    assert [(hit.start_s, round(hit.similarity, 5)) for hit in hits] == [(2.0, 1.0), (1.0, 0.0), (0.0, -1.0)]
    assert (
        EmbeddingIndex(EmbeddingArchive(tmp_path)).most_similar(np.ones(CHANNELS), 3, every_window=True)
        == hits
    )


def test_archives_in_other_filesystems_are_read(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/archive/", recursive=True)
    query = VECTORS[5, 0]
    filters = Filters(("Dog",), [Condition.parse("duration_s>1")])
    assert most_similar(query, EmbeddingArchive("memory://archive"), 3, filters=filters) == most_similar(
        query, EmbeddingArchive(folder), 3, filters=filters
    )


@pytest.mark.parametrize("text", ["duration_s", ">5", "duration_s=>", "path like x", ""])
def test_other_conditions_are_refused(folder: Path, text: str) -> None:
    archive = EmbeddingArchive(folder)
    with pytest.raises(DataError):
        most_similar(VECTORS[0, 0], archive, filters=Filters(conditions=[Condition.parse(text)]))


@pytest.mark.parametrize("condition", ["nothing=1", "duration_s=long", "duration_s~5"])
def test_conditions_that_do_not_fit_their_column_are_refused(folder: Path, condition: str) -> None:
    with pytest.raises(DataError, match=condition[:7]):
        most_similar(
            VECTORS[0, 0], EmbeddingArchive(folder), filters=Filters(conditions=[Condition.parse(condition)])
        )


def test_what_is_not_an_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    parquet.write_table(pyarrow.table({"path": ["a"]}), tmp_path / "y.parquet")
    for path in ("x.parquet", "y.parquet", "nothing", "nothing.parquet"):
        with pytest.raises(DataError, match=path):
            EmbeddingArchive(tmp_path / path)
    archive = EmbeddingArchive(folder)
    for query in (np.ones(CHANNELS + 1), np.full(CHANNELS, np.nan)):
        with pytest.raises(DataError):
            most_similar(query, archive)
    single = EmbeddingArchive(folder / "embeddings" / "0.parquet")
    with pytest.raises(DataError, match="local folder"):
        EmbeddingIndex(single)
    with pytest.raises(DataError, match="--where"):
        most_similar(VECTORS[0, 0], single, filters=Filters(conditions=[Condition.parse("size>1")]))
    with pytest.raises(DataError, match="--tags"):
        most_similar(VECTORS[0, 0], single, filters=Filters(["Dog"]))
