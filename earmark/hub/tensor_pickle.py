"""Reads the pickles of PyTorch checkpoints as data: an interpreter that knows tensors and plain values only.

Source: the format of Python's pickle protocols up to 2 (``pickletools``); the reductions of
``torch._utils``.

Conventions: Python's unpickler is never used, nothing is imported and nothing is called. A name in the pickle
is looked up in :data:`STORAGE_TYPES` and :data:`CALLABLES`; any other ends the reading. Tensors stay
descriptions of where their values lie, which are checked against the size of their storage. Memory and time
are in proportion to the length of the pickle.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from earmark.errors import ModelError

STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Name in the module torch -> type of the values; complex and quantised ones are refused."""
ITEM_SIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "bool": 1}
ITEM_SIZE |= {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1}
"""Type of values -> bytes of each."""
MAX_PICKLE = 1 << 24
"""Longest pickle in bytes; that of the largest published file has about 10^5."""


@dataclass(frozen=True)
class Storage:
    """Values that tensors share.

    Args:
        key: Name of the storage in the file.
        kind: Type of the values.
        numel: Number of values.
    """

    key: str
    kind: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """Where the values of a tensor lie.

    Args:
        storage: Their storage.
        offset: First value.
        shape: Length of each axis.
        strides: Values from one position of an axis to the next.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that the pickle looks up."""

    name: str


class _Mark:
    """Where the items of a collection begin on the stack."""


@dataclass
class _State:
    """What a pickle has built so far."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def pop(self, count: int) -> list[Any]:
        """Takes items from the stack, in the order in which they were put there."""
        items = self.stack[len(self.stack) - count :]
        if len(items) < count or any(isinstance(item, _Mark) for item in items):
            raise ValueError("the stack is empty")
        del self.stack[len(self.stack) - count :]
        return items

    def pop_to_mark(self) -> list[Any]:
        """Takes all items above the last mark, and the mark."""
        start = len(self.stack) - 1
        while start >= 0 and not isinstance(self.stack[start], _Mark):
            start -= 1
        if start < 0:
            raise ValueError("a mark is missing")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """The collection on the stack that items are added to."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} is missing")
        return self.stack[-1]


def read_pickle(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle of a PyTorch checkpoint.

    Args:
        stream: At the beginning of the pickle; afterwards at its end. No more than :data:`MAX_PICKLE` bytes.

    Returns:
        The value, of dict, list, tuple, str, int, float, bool, None and :class:`StoredTensor`; and the
        storages that it has, by key.

    Raises:
        ModelError: If it has anything else or is damaged, or a tensor does not fit its storage.
    """
    state = _State()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            step = _STEPS.get(opcode.name)
            if step is None:
                raise ModelError(f"its pickle has the instruction {opcode.name}: refused, no code was run")
            step(state, argument)
        [value] = state.stack
        if isinstance(value, (_Mark, _Name)):
            raise ValueError("there is no value")
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"is not a valid PyTorch checkpoint (its pickle is damaged: {reason})") from None
    return value, state.storages


def _look_up(state: _State, argument: str) -> None:
    module, _, name = argument.partition(" ")
    known = name in STORAGE_TYPES if module == "torch" else f"{module}.{name}" in CALLABLES
    if not known:
        asked = ascii(f"{module}.{name}"[:80])[1:-1]
        raise ModelError(
            f"would use {asked} when loaded, which is neither a tensor nor a plain value: refused, no code "
            "was run"
        )
    state.stack.append(_Name(f"{module}.{name}"))


def _call(state: _State, _: object) -> None:
    called, arguments = state.pop(2)
    if not isinstance(called, _Name) or called.name not in CALLABLES or not isinstance(arguments, tuple):
        raise ValueError("something is called that cannot be")
    state.stack.append(CALLABLES[called.name](*arguments))


def _empty_dict(*arguments: object) -> dict[Any, Any]:
    """An OrderedDict, which is pickled without arguments; its items follow."""
    if arguments:
        raise ValueError("an OrderedDict has arguments")
    return {}


def _tensor(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object,
    hooks: object,
    metadata: object = None,
) -> StoredTensor:
    """``torch._utils._rebuild_tensor_v2``: checks that every value lies within the storage."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    first, lengths, steps = _size(offset), _sizes(shape), _sizes(strides)
    if hooks or metadata:
        raise ModelError("a tensor has hooks or metadata: refused")
    last = first + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    numel = math.prod(lengths)
    if numel > storage.numel or (numel and last >= storage.numel):
        raise ModelError(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} does not fit its storage of "
            f"{storage.numel} values: it is not a valid PyTorch checkpoint"
        )
    return StoredTensor(storage, first, lengths, steps)


def _parameter(data: object, requires_grad: object, hooks: object) -> StoredTensor:
    """``torch._utils._rebuild_parameter``."""
    if not isinstance(data, StoredTensor) or hooks:
        raise ValueError("a parameter is no tensor, or has hooks")
    return data


def _size(value: object) -> int:
    """An offset, a length or a number of values."""
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("a size is not a natural number")
    return value


def _sizes(value: object) -> tuple[int, ...]:
    """Lengths or strides of at most 32 axes, which NumPy has."""
    if not isinstance(value, tuple) or len(value) > 32:
        raise ValueError("a shape is not a tuple of natural numbers")
    return tuple(map(_size, value))


CALLABLES: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""Every function that a pickle may name, and what is done in its place."""


def _load_storage(state: _State, _: object) -> None:
    """A persistent id: ("storage", type, key, device, number of values), before PyTorch 1.6 with a view."""
    [described] = state.pop(1)
    word, kind, key, _device, numel, *view = described
    name = kind.name.removeprefix("torch.") if isinstance(kind, _Name) else ""
    if word != "storage" or name not in STORAGE_TYPES or type(key) is not str:
        raise ValueError("a storage is malformed")
    if view not in ([], [None]):
        raise ModelError("a storage is a view of another: refused")
    storage = Storage(key, STORAGE_TYPES[name], _size(numel))
    if state.storages.setdefault(key, storage) != storage:
        raise ValueError(f"storage {key[:40]!r} has two types or sizes")
    state.stack.append(storage)


def _set_items(state: _State, items: list[Any]) -> None:
    target = state.top(dict)
    if len(items) % 2:
        raise ValueError("a key has no value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int, float)):  # the hash of a nested tuple may need much stack
            raise ValueError(f"a key is a {type(key).__name__}")
        target[key] = value


def _build(state: _State, _: object) -> None:
    """Attributes of an OrderedDict, such as the ``_metadata`` of a state dict, are not needed."""
    [attributes] = state.pop(1)
    state.top(dict)
    if not isinstance(attributes, dict):
        raise ValueError("the attributes of an OrderedDict are no dict")


def _collect(make: Callable[[list[Any]], object], count: int | None = None) -> Callable[[_State, Any], None]:
    """A step that replaces items of the stack, those above the mark if there is no count."""

    def step(state: _State, _: object) -> None:
        state.stack.append(make(state.pop_to_mark() if count is None else state.pop(count)))

    return step


def _push(make: Callable[[Any], object]) -> Callable[[_State, Any], None]:
    return lambda state, argument: state.stack.append(make(argument))


def _store(state: _State, argument: int) -> None:
    if not state.stack or isinstance(state.stack[-1], _Mark):
        raise ValueError("the stack is empty")
    state.memo[argument] = state.stack[-1]


def _fetch(state: _State, argument: int) -> None:
    state.stack.append(state.memo[argument])


def _extend(state: _State, items: list[Any]) -> None:
    state.top(list).extend(items)


def _same(value: object) -> object:
    return value


_STEPS: dict[str, Callable[[_State, Any], None]] = {
    "PROTO": lambda state, _: None,
    "MARK": _push(lambda _: _Mark()),
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push(_same)),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING", "BINSTRING"), _push(_same)),
    "EMPTY_DICT": _push(lambda _: {}),
    "EMPTY_LIST": _push(lambda _: []),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "TUPLE": _collect(tuple),
    "TUPLE1": _collect(tuple, 1),
    "TUPLE2": _collect(tuple, 2),
    "TUPLE3": _collect(tuple, 3),
    "APPEND": lambda state, _: _extend(state, state.pop(1)),
    "APPENDS": lambda state, _: _extend(state, state.pop_to_mark()),
    "SETITEM": lambda state, _: _set_items(state, state.pop(2)),
    "SETITEMS": lambda state, _: _set_items(state, state.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _store),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _fetch),
    "GLOBAL": _look_up,
    "REDUCE": _call,
    "BUILD": _build,
    "BINPERSID": _load_storage,
}
"""Every instruction that a pickle may have; PyTorch writes these."""
