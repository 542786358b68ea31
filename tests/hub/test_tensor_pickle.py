"""Pickles of checkpoints are data: tensors and plain values are read, and nothing that is named is called."""

import contextlib
import io
import os
import pickle
import pickletools
from collections import OrderedDict, defaultdict
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import ModelError
from earmark.hub.tensor_pickle import CALLABLES, STORAGE_TYPES, StoredTensor, read_pickle


def read(content: bytes):
    return read_pickle(io.BytesIO(content))[0]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_plain_values_are_read(value):
    assert read(pickle.dumps(value, protocol=2)) == value


class Calls:
    """Is unpickled by calling what it was given."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def forged(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


SYSTEM = b"cposix\nsystem\n"
HOSTILE = {
    "command": lambda mark: Calls(os.system, f"touch {mark}"),
    "evaluation": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "opening": lambda mark: Calls(open, str(mark), "w"),
    "method": lambda mark: Calls(Path.touch, mark),
    "nested": lambda mark: {"net": OrderedDict(a=[(Calls(os.mkdir, str(mark)),)])},
    "class": lambda mark: {"of": Decimal(1)},
    "partial": lambda mark: partial(os.mkdir, str(mark)),
    "default": lambda mark: defaultdict(list),
    "type": lambda mark: {"type": int},
    "set": lambda mark: {1, 2},
    "bytes": lambda mark: b"\xff",
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_more_than_data_is_refused(tmp_path, name, protocol):
    mark = tmp_path / "it_ran"
    with pytest.raises(ModelError) as caught:
        read(pickle.dumps(HOSTILE[name](mark), protocol=protocol))
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_name_that_is_asked_for_is_said():
    with pytest.raises(ModelError, match=r"would use posix\.system when loaded.*no code was run"):
        read(pickle.dumps(Calls(os.system, "true"), protocol=2))


DAMAGED = {
    "empty": b"",
    "not_a_pickle": b"hello",
    "no_stop": b"\x80\x02}",
    "no_value": forged(),
    "two_values": forged(b"}", b"}"),
    "mark_missing": forged(b"t"),
    "items_of_nothing": forged(b"(", b"u"),
    "key_without_value": forged(b"}", b"(", b"K\x01", b"u"),
    "memo_missing": forged(b"h\x05"),
    "memo_of_nothing": forged(b"q\x00"),
    "call_of_data": forged(b"K\x01", b")", b"R"),
    "call_without_tuple": forged(b"ccollections\nOrderedDict\n", b"K\x01", b"R"),
    "dict_with_arguments": forged(b"ccollections\nOrderedDict\n", b"K\x01\x85", b"R"),
    "only_a_name": forged(b"ccollections\nOrderedDict\n"),
    "state_of_a_list": forged(b"]", b"}", b"b"),
    "key_is_a_tuple": forged(b"}", b")", b"K\x01", b"s"),
    "storage_is_a_number": forged(b"K\x01", b"Q"),
    "tensor_of_nothing": forged(b"ctorch._utils\n_rebuild_tensor_v2\n", b")", b"R"),
    "length_lies": forged(b"X\xff\xff\xff\x7fabc"),
    "mark_is_an_item": forged(b"(", b"K\x01", b"\x86"),
    "deep_tuple_as_key": forged(b"}", b")" + b"\x85" * 200_000, b"K\x01", b"s"),
    "extension": forged(b"\x82\x01"),
    "new_object": forged(b"ccollections\nOrderedDict\n", b")", b"\x81"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles_are_refused(name):
    with pytest.raises(ModelError) as caught:
        read(DAMAGED[name])
    assert "\n" not in str(caught.value)


def tensor(
    storage=("torch", "FloatStorage"), count=6, offset=0, shape=(2, 3), strides=(3, 1), **more
) -> bytes:
    """The pickle of one tensor, with what PyTorch would write."""
    numbers = {"key": "0", "hooks": b"ccollections\nOrderedDict\n)R", "view": b"", **more}

    def ints(values) -> bytes:
        return b"(" + b"".join(pickle.dumps(value, 2)[2:-1] for value in values) + b"t"

    identity = b"(X\x07\x00\x00\x00storage" + "c{}\n{}\n".format(*storage).encode()
    identity += (
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + pickle.dumps(count, 2)[2:-1] + numbers["view"] + b"tQ"
    )
    last = b"\x89" + numbers["hooks"] + numbers.get("metadata", b"")
    arguments = b"(" + identity + pickle.dumps(offset, 2)[2:-1] + ints(shape) + ints(strides) + last + b"t"
    return forged(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"strides": (1, 2)},
        {"count": 100, "offset": 94},
        {"shape": (), "strides": ()},
        {"shape": (0, 5), "strides": (5, 1), "count": 0},
        {"shape": (2, 2), "strides": (0, 1)},
    ],
)
def test_tensors_within_their_storage_are_read(given):
    assert isinstance(read(tensor(**given)), StoredTensor)


@pytest.mark.parametrize(
    "given",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 1.0},
        {"offset": True},
        {"shape": (3, 3)},
        {"shape": (2, -3)},
        {"shape": (2,)},
        {"strides": (4, 1)},
        {"strides": (-3, 1)},
        {"strides": (1 << 62, 1)},
        {"shape": (1 << 40, 1), "strides": (0, 0)},
        {"shape": (1,) * 40, "strides": (1,) * 40},
        {"count": -6},
        {"count": "6"},
        {"storage": ("torch", "ComplexFloatStorage")},
        {"storage": ("torch", "QInt8Storage")},
        {"storage": ("torch", "UntypedStorage")},
        {"storage": ("os", "system")},
        {"hooks": b"ccollections\nOrderedDict\n)RK\x01K\x01s"},
        {"metadata": b"}X\x04\x00\x00\x00conj\x88s"},
        {"view": b"(X\x01\x00\x00\x001K\x00K\x06t"},
    ],
    ids=str,
)
def test_tensors_that_lie_are_refused(given):
    with pytest.raises(ModelError) as caught:
        read(tensor(**given))
    assert "\n" not in str(caught.value)


def test_a_storage_has_one_size():
    one, two = tensor(count=6), tensor(count=7)
    with pytest.raises(ModelError, match="two types or sizes"):
        read(b"\x80\x02" + one[2:-1] + two[2:-1] + b"\x86.")


def test_the_allow_list_is_exact():
    assert set(CALLABLES) == {
        "collections.OrderedDict",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
    }
    assert not [name for name in STORAGE_TYPES if "Complex" in name or "Q" in name]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_read_or_refused(data):
    opcodes = [code.code.encode("latin-1") for code in pickletools.opcodes]
    piece = st.sampled_from(opcodes) | st.binary(max_size=3) | st.sampled_from([tensor()[2:-1], SYSTEM])
    content = b"".join(data.draw(st.lists(piece, max_size=30)))
    with contextlib.suppress(ModelError):
        read(b"\x80\x02" + content + b".")
