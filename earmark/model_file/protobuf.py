"""Fields of serialised protobuf messages, read and written without the packages onnx and protobuf.

Source: https://protobuf.dev/programming-guides/encoding/.

Conventions: a message is a sequence of fields, each a tag (number and wire type) and a value. Only
length-delimited values are looked into: strings, bytes, and messages inside messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH_DELIMITED = 0, 1, 2


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Number of the field.
        value: The length-delimited value; empty for other wire types.
        encoded: The whole field, with its tag.
    """

    number: int
    value: memoryview
    encoded: memoryview


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yields the fields of a message, in order.

    Args:
        message: A valid serialised message; only files whose hash was verified are read.
    """
    message, position = memoryview(message), 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        begin, kind = position, tag & 7
        if kind == _LENGTH_DELIMITED:
            length, begin = _read_varint(message, position)
            position = begin + length
        elif kind == _VARINT:
            _, position = _read_varint(message, position)
            begin = position
        else:
            begin = position = position + (8 if kind == _FIXED64 else 4)
        yield Field(tag >> 3, message[begin:position], message[start:position])


def find(message: bytes | memoryview, number: int) -> memoryview:
    """Returns the value of the first field of a number; empty if there is none."""
    return next((field.value for field in fields(message) if field.number == number), memoryview(b""))


def encode(number: int, value: bytes) -> bytes:
    """Encodes a length-delimited field."""
    return header(number, len(value)) + value


def header(number: int, length: int) -> bytes:
    """Encodes what precedes the value of a length-delimited field.

    Args:
        number: Number of the field, from 1 to 15.
        length: Length of the value in bytes.
    """
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(length)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
