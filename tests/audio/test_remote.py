"""Recordings at addresses: read in blocks through fsspec, from memory and from a server that speaks S3."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from earmark.audio import open_audio
from earmark.audio.find import find_recordings
from earmark.audio.remote import BLOCK_BYTES
from earmark.errors import AudioError

fsspec = pytest.importorskip("fsspec")
EXAMPLE = Path(__file__).parents[2] / "examples" / "farm.ogg"


def waveform(source: object) -> np.ndarray:
    with open_audio(source) as stream:
        return np.concatenate(list(stream.blocks()))


@pytest.fixture
def memory() -> Iterator[object]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_an_address_is_read_as_the_file(memory: object) -> None:
    memory.pipe("/yard/farm.ogg", EXAMPLE.read_bytes())
    np.testing.assert_array_equal(waveform("memory://yard/farm.ogg"), waveform(EXAMPLE))


def test_folders_and_patterns_are_listed(memory: object) -> None:
    for name in ("b.wav", "a.flac", "notes.txt", "deep/c.mp3", ".hidden/d.wav", "deep/.e.wav"):
        memory.pipe(f"/yard/{name}", b"x")

    def listed(*paths: str, recursive: bool = False) -> list[str]:
        return [str(item).removeprefix("memory:///yard/") for item in find_recordings(paths, recursive)]

    assert listed("memory://yard") == ["a.flac", "b.wav"]
    assert listed("memory://yard", recursive=True) == ["a.flac", "b.wav", "deep/c.mp3"]
    assert listed("memory://yard/*.wav") == ["b.wav"]
    assert listed("memory://yard/b.wav") == ["memory://yard/b.wav"]


@pytest.mark.parametrize("address", ["memory://yard/nothing.wav", "nonsense://yard/a.wav"])
def test_an_address_without_a_recording_is_an_error_that_names_it(memory: object, address: str) -> None:
    with pytest.raises(AudioError, match=address):
        waveform(address)


def test_a_folder_that_cannot_be_listed_is_an_item() -> None:
    items = list(find_recordings(["nonsense://yard", str(EXAMPLE)]))
    assert isinstance(items[0], AudioError)
    assert items[1:] == [str(EXAMPLE)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir("sounds")
        filesystem.pipe("sounds/yard/farm.ogg", EXAMPLE.read_bytes())
        long = np.zeros((3 * BLOCK_BYTES // 2,), "<i2")
        long[::7] = 99
        header = b"RIFF" + (36 + long.nbytes).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
        header += b"\x01\x00\x01\x00\x80\xbb\x00\x00\x00\x77\x01\x00\x02\x00\x10\x00data"
        content = header + long.nbytes.to_bytes(4, "little") + long.tobytes()
        filesystem.pipe("sounds/yard/long.wav", content)
        found = list(find_recordings(["s3://sounds/yard"]))
        assert found == ["s3://sounds/yard/farm.ogg", "s3://sounds/yard/long.wav"]
        np.testing.assert_array_equal(waveform(found[0]), waveform(EXAMPLE))
        np.testing.assert_array_equal(waveform(found[1]), waveform(content))
        with pytest.raises(AudioError, match="s3://sounds/nothing"):
            waveform("s3://sounds/nothing.wav")
    finally:
        running.stop()
