"""Fields of serialised protobuf messages, read and written without the packages onnx and protobuf.

Source: https://protobuf.dev/programming-guides/encoding/.

Conventions: a message is a sequence of fields, each a tag (number and wire type) and a value. Only
length-delimited values are looked into: strings, bytes, and messages inside messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from earmark.errors import ModelError

_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire type -> bytes of its values."""
_VARINT_BYTES = 10
_AGAIN = "download or export it again"


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Number of the field.
        value: The length-delimited value; empty for other wire types.
        encoded: The whole field, with its tag.
        integer: The value of a varint, not negative; 0 for other wire types.
    """

    number: int
    value: memoryview
    encoded: memoryview
    integer: int = 0


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yields the fields of a message, in order.

    Args:
        message: A serialised message.

    Raises:
        ModelError: If it is malformed: cut off, or with a wire type that protobuf no longer writes.
    """
    message, position = memoryview(message), 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        begin, kind, integer = position, tag & 7, 0
        if kind == _LENGTH_DELIMITED:
            length, begin = _read_varint(message, position)
            position = begin + length
        elif kind == _VARINT:
            integer, position = _read_varint(message, position)
            begin = position
        elif kind in _FIXED:
            begin = position = position + _FIXED[kind]
        else:
            raise ModelError(f"the file has a field of wire type {kind}: {_AGAIN}")
        if position > len(message):
            raise ModelError(f"a field ends beyond the end of the file: {_AGAIN}")
        yield Field(tag >> 3, message[begin:position], message[start:position], integer)


def find(message: bytes | memoryview, number: int) -> memoryview:
    """Returns the value of the first field of a number; empty if there is none."""
    return next((field.value for field in fields(message) if field.number == number), memoryview(b""))


def encode(number: int, value: bytes) -> bytes:
    """Encodes a length-delimited field."""
    return header(number, len(value)) + value


def header(number: int, length: int) -> bytes:
    """Encodes what precedes the value of a length-delimited field.

    Args:
        number: Number of the field.
        length: Length of the value in bytes.
    """
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def encode_integer(number: int, value: int) -> bytes:
    """Encodes a varint field.

    Args:
        number: Number of the field.
        value: Not negative.
    """
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    for byte in message[position : position + _VARINT_BYTES]:
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
    raise ModelError(f"a number in the file does not end: {_AGAIN}")
