"""Checkpoints read without PyTorch: equal to ``torch.load(weights_only=True)``, or refused in one line."""

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from earmark.errors import ModelError
from earmark.hub.checkpoint import read_checkpoint


def saved(content: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def by_torch(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("net", content)


def assert_equal(read: dict[str, np.ndarray], wanted: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(wanted)
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.detach().numpy().dtype
        assert read[name].shape == tuple(tensor.shape)
        assert read[name].flags["C_CONTIGUOUS"]
        assert read[name].tobytes() == tensor.detach().contiguous().numpy().tobytes(), name


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))


def trained() -> dict[str, object]:
    """What a training saves: weights, optimizer, scheduler, settings."""
    made = network()
    optimizer = torch.optim.AdamW(made.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    made(torch.randn(2, 2, 6, 6)).sum().backward()
    optimizer.step()
    scheduler.step()
    config = {"net": "x", "lr": 1e-3, "shape": [1, (2, 3)], "off": None, "on": True, "big": 2**70}
    states = {"optim": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    return {"epoch": 200, "net": made.state_dict(), **states, "config": config}


def views() -> dict[str, torch.Tensor]:
    """Tensors that share a storage, with other strides and offsets."""
    base = torch.arange(24.0)
    return {
        "whole": base,
        "part": base[5:9],
        "every_second": base[1::2],
        "transposed": base.view(4, 6).T,
        "permuted": base.view(2, 3, 4).permute(2, 0, 1),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "scalar": base[3],
        "empty": base[:0],
        "no_rows": torch.zeros(0, 5),
    }


GOOD = {
    "state_dict": lambda: network().state_dict(),
    "plain_dict": lambda: dict(network().state_dict()),
    "parameters": lambda: OrderedDict(network().named_parameters()),
    "training": trained,
    "views": views,
    "types": lambda: (
        {
            f"{kind}": torch.arange(7).to(kind)
            for kind in (
                torch.float64,
                torch.float16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
            )
        }
        | {"bool": torch.tensor([True, False])}
    ),
    "not_finite": lambda: {"a": torch.tensor([torch.nan, torch.inf, -0.0])},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_read_as_pytorch_reads_them(tmp_path, name, legacy):
    path = tmp_path / "a.pt"
    path.write_bytes(saved(GOOD[name](), legacy=legacy))
    assert_equal(read_checkpoint(path), by_torch(path))


def test_the_real_published_file(shared):
    path = shared / "teachers" / "mn04_as_mAP_432.pt"
    read = read_checkpoint(path)
    assert len(read) == 312
    assert_equal(read, by_torch(path))


class Malice:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


TYPES = {
    "complex": lambda: {"a": torch.zeros(2, dtype=torch.complex64)},
    "quantised": lambda: {"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)},
    "bfloat16": lambda: {"a": torch.zeros(2, dtype=torch.bfloat16)},
    "float8": lambda: {"a": torch.zeros(2, dtype=torch.float8_e4m3fn)},
    "sparse": lambda: {"a": torch.eye(3).to_sparse()},
    "meta": lambda: {"a": torch.zeros(2, device="meta")},
    "conjugate": lambda: {"a": torch.zeros(2, dtype=torch.complex64).conj()},
    "expanded": lambda: {"a": torch.zeros(1).expand(1000)},
    "module": lambda: network(),
    "numbers": lambda: {"a": 1},
    "list": lambda: [torch.zeros(2)],
    "tensor": lambda: torch.zeros(2),
    "nothing": dict,
    "mixed": lambda: {"a": torch.zeros(2), "b": 1},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", TYPES)
def test_other_content_is_refused(tmp_path, name, legacy):
    if legacy and name == "float8":
        pytest.skip("PyTorch cannot write it")
    assert_refused(tmp_path, saved(TYPES[name](), legacy=legacy))


def assert_refused(folder: Path, content: bytes, problem: str | None = None) -> None:
    path = folder / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["zip", "legacy", "beside", "pickle"])
def test_malicious_pickles_are_refused_and_run_nothing(tmp_path, how):
    mark = tmp_path / "it_ran"
    content = (
        {"net": network().state_dict(), "more": Malice(mark)} if how == "beside" else {"a": Malice(mark)}
    )
    written = pickle.dumps(content, 2) if how == "pickle" else saved(content, legacy=how == "legacy")
    assert_refused(tmp_path, written, None if how == "pickle" else r"system.*no code was run")
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and no more",
        b"\x80\x02}q\x00.",
        b"<!DOCTYPE html><html></html>",
        b"PK\x05\x06" + bytes(18),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    assert_refused(tmp_path, content)
    with pytest.raises(ModelError, match=r"none\.pt: cannot be read: No such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_truncation_is_refused(tmp_path, legacy):
    content = saved(network().state_dict(), legacy=legacy)
    for length in range(0, len(content), 101):
        assert_refused(tmp_path, content[:length])
    assert_refused(tmp_path, content[:-1])


def rewritten(content: bytes, change, **options) -> bytes:
    """An archive with entries changed by name within its folder: other bytes, or None to leave it out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", **options) as new:
        for name in old.namelist():
            within = name.partition("/")[2]
            data = change(within, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return out.getvalue()


ARCHIVES = {
    "compressed": lambda c: rewritten(c, lambda n, d: d, compression=zipfile.ZIP_DEFLATED),
    "bomb": lambda c: rewritten(
        c, lambda n, d: bytes(50_000_000) if n == "data/0" else d, compression=zipfile.ZIP_DEFLATED
    ),
    "no_pickle": lambda c: rewritten(c, lambda n, d: None if n == "data.pkl" else d),
    "no_storage": lambda c: rewritten(c, lambda n, d: None if n == "data/0" else d),
    "short_storage": lambda c: rewritten(c, lambda n, d: d[:-4] if n == "data/0" else d),
    "long_storage": lambda c: rewritten(c, lambda n, d: d + bytes(4) if n == "data/0" else d),
    "big_endian": lambda c: rewritten(c, lambda n, d: b"big" if n == "byteorder" else d),
    "big_pickle": lambda c: rewritten(c, lambda n, d: d + bytes(1 << 24) if n == "data.pkl" else d),
    "other_values": lambda c: c.replace(np.float32(0.5).tobytes() * 8, np.float32(0.25).tobytes() * 8),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_lying_archives_are_refused(tmp_path, name):
    content = saved({"a": torch.full((100,), 0.5), "b": torch.zeros(3)})
    changed = ARCHIVES[name](content)
    assert changed != content
    assert_refused(tmp_path, changed, "compressed" if name in ("compressed", "bomb") else None)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice_is_refused(tmp_path):
    stream = io.BytesIO(saved({"a": torch.zeros(3)}))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/data/0", bytes(12))
    assert_refused(tmp_path, stream.getvalue(), "twice|overlap")


def nested(entries: list[str], last: bytes) -> bytes:
    """An archive in which each entry contains the headers and contents of all that follow it."""
    content, central = last, []
    for name in reversed(entries):
        sizes = struct.pack("<LLL", zlib.crc32(content), len(content), len(content))
        names = struct.pack("<HH", len(name), 0) + name.encode()
        content = b"PK\x03\x04" + bytes([20, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + sizes + names + content
        central.append((name, sizes, len(content)))
    total, directory = len(content), b""
    for name, sizes, length in central:
        places = struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, total - length)
        directory += (
            b"PK\x01\x02" + bytes([20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + sizes + places + name.encode()
        )
    end = struct.pack("<HHHHLLH", 0, 0, len(central), len(central), len(directory), total, 0)
    return content + directory + b"PK\x05\x06" + end


def test_overlapping_entries_are_refused(tmp_path):
    """Many storages in the same bytes: a file that is larger in memory than on disk."""
    names = [f"archive/data/{number}" for number in range(4)]
    forged = nested(names, bytes(1000))
    with zipfile.ZipFile(io.BytesIO(forged)) as archive:
        sizes = [archive.getinfo(name).file_size for name in names]
    assert sum(sizes) > 2 * len(forged)
    tensors = {str(number): torch.zeros(size, dtype=torch.uint8) for number, size in enumerate(sizes)}
    with zipfile.ZipFile(io.BytesIO(saved(tensors))) as archive:
        described = archive.read("archive/data.pkl")
    out = io.BytesIO(forged)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("archive/data.pkl", described)
    assert_refused(tmp_path, out.getvalue(), "overlap")


@pytest.mark.parametrize("field", ["compressed", "size"])
def test_sizes_of_entries_that_lie_are_refused(tmp_path, field):
    content = saved({"a": torch.full((100,), 0.5)})
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/0"))
    at = start + {"compressed": 20, "size": 24}[field]
    for size in (1 << 31, 0, 399):
        assert_refused(tmp_path, content[:at] + struct.pack("<L", size) + content[at + 4 :])


def test_legacy_storages_that_lie_are_refused(tmp_path):
    content = saved({"a": torch.full((100,), 0.5)}, legacy=True)
    at = content.rindex(struct.pack("<q", 100))
    for count in (99, 101, 1 << 62, -1):
        assert_refused(tmp_path, content[:at] + struct.pack("<q", count) + content[at + 8 :])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), legacy=st.booleans())
def test_a_damaged_file_is_refused_or_read_right(tmp_path, data, legacy):
    """Of an archive, which has checksums, as it was; else as PyTorch reads it."""
    whole = views()
    content = bytearray(saved(whole, legacy=legacy))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    try:
        read = read_checkpoint(path)
    except ModelError:
        return
    assert_equal(read, by_torch(path) if legacy else whole)
