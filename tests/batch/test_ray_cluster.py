"""Archives on a Ray cluster: a bucket, two actors of which one is killed, and what is done earlier."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import soundfile

import earmark
from earmark.audio.find import find_recordings
from earmark.batch import ray_cluster
from earmark.batch.analysis import Analysis, Filter
from earmark.batch.run import write_archive
from earmark.errors import DataError

pytest.importorskip("ray")
fsspec, server = pytest.importorskip("fsspec"), pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FILES = 24
RATE = 8000


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The file system of a server that speaks S3, with the bucket ``sounds``."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    settings = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    filesystem.mkdir("sounds")
    yield filesystem
    running.stop()


def rows(filesystem: object, table: str) -> list[dict[str, object]]:
    from pyarrow import dataset

    found = dataset.dataset(f"sounds/results/{table}", filesystem=filesystem, format="parquet")
    return found.to_table().to_pylist()


def kill_an_actor() -> None:
    """Kills the first actor that works on a group."""
    for _ in range(6000):
        for process in psutil.process_iter(["cmdline"]):
            name = " ".join(process.info["cmdline"] or [])
            if name.startswith("ray::MapWorker") and "submit" in name:
                process.kill()
                return
        time.sleep(0.01)


def test_a_killed_actor_loses_and_doubles_no_row(
    bucket: object, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.setattr(ray_cluster, "GROUP", 2)
    for number in range(FILES):
        noise = 0.1 * np.random.default_rng(number).standard_normal(60 * RATE)
        soundfile.write(tmp_path / f"{number:02}.wav", noise, RATE)
        bucket.put(str(tmp_path / f"{number:02}.wav"), f"sounds/yard/{number:02}.wav")
    bucket.pipe("sounds/yard/broken.wav", b"no sound")
    analysis = Analysis(earmark.load(toy_model, threads=1), hop_s=0.1, filter=Filter(top=2))
    killer = threading.Thread(target=kill_an_actor, daemon=True)
    killer.start()
    listed = list(find_recordings(["s3://sounds/yard"]))
    summary = ray_cluster.write_archive_on_ray(analysis, listed, "s3://sounds/results", workers=2)
    killer.join(1)
    assert not killer.is_alive(), "no actor was killed"

    assert (summary.files, summary.failed, summary.audio_s) == (FILES, 1, FILES * 60.0)
    assert Counter(row["path"] for row in rows(bucket, "files")) == Counter(listed)
    assert Counter(row["path"] for row in rows(bucket, "tags")) == Counter(2 * listed[:-1])

    local = write_archive(
        analysis, map(str, sorted(tmp_path.glob("*.wav"))), tmp_path / "local", workers=1, ordered=True
    )
    assert local.files == FILES
    from pyarrow import dataset

    here = dataset.dataset(tmp_path / "local" / "tags").to_table().to_pylist()
    there = {(Path(row["path"]).name, row["label"]): row for row in rows(bucket, "tags")}
    for row in here:
        same = there[Path(row["path"]).name, row["label"]]
        assert {**row, "path": ""} == {**same, "path": ""}

    with pytest.raises(DataError, match="--resume"):
        ray_cluster.write_archive_on_ray(analysis, listed, "s3://sounds/results", workers=1)
    again = ray_cluster.write_archive_on_ray(analysis, listed, "s3://sounds/results", workers=1, resume=True)
    assert (again.files, again.failed, again.earlier) == (0, 0, FILES + 1)
