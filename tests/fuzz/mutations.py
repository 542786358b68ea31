"""Changes of files: of bytes, of text, and of JSON, drawn from a seeded generator."""

import json
from random import Random
from typing import Any

_NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**32 - 1, 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308)
_TEXTS = (
    "",
    " ",
    "x" * 10_000,
    "\ud800",
    "\x00",
    "../../x",
    "/dev/null",
    "no",
    "1",
    "²",
    "{fold}",
    "\x1b[2J",
)
_ODD = (None, True, False, [], {}, [[]], [1, 2, 3], float("nan"), float("inf"), -float("inf"))
INTERESTING: tuple[Any, ...] = (*_NUMBERS, *_TEXTS, *_ODD)
TOKENS = (
    *(
        "," * 1,
        ";",
        '"',
        "\n",
        "\r\n",
        "\t",
        " ",
        "=",
        "[",
        "]",
        "{",
        "}",
        ":",
        "'",
        "#",
        "\\",
        "\x00",
        "\ufeff",
        "é",
    ),
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "1e23",
        "99999999999999999999",
        "true",
        "null",
        '"""',
        "\\ud800",
    ),
    *("path", "labels", "[" * 3000, "{" * 3000, "a." * 3000, "x" * 200_000, "../../x", "\udcff", "²"),
)


def bytes_changed(random: Random, content: bytes) -> bytes:
    """One to four changes of bytes: flipped, replaced, inserted, removed, repeated, swapped, or cut off."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(changed) + 1)
        length = random.choice((1, 1, 2, 4, 8, 64, 1000))
        kind = random.randrange(7)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[at : at + length] = random.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif kind == 2:
            changed[at:at] = random.randbytes(length)
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            other = random.randrange(len(changed) + 1)
            changed[at : at + length] = changed[other : other + length]
        else:
            del changed[at if random.random() < 0.5 else len(changed) - min(length, len(changed)) :]
    return bytes(changed)


def text_changed(random: Random, content: bytes) -> bytes:
    """One to four changes of a text: tokens inserted or in place of a few characters; or of its bytes."""
    if random.random() < 0.25:
        return bytes_changed(random, content)
    text = content.decode()
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(text) + 1)
        kind = random.randrange(4)
        if kind == 0:
            text = text[:at] + random.choice(TOKENS) + text[at:]
        elif kind == 1:
            text = text[:at] + random.choice(TOKENS) + text[at + random.choice((1, 2, 5, 20)) :]
        elif kind == 2:
            lines = text.splitlines(keepends=True)
            lines.insert(random.randrange(len(lines) + 1), random.choice(lines or [""]))
            text = "".join(lines)
        else:
            text = text[:at]
    return text.encode("utf-8", "surrogatepass")


def json_changed(random: Random, content: bytes | str) -> bytes:
    """A value somewhere in JSON replaced, removed or doubled; or its text changed."""
    text = content.decode() if isinstance(content, bytes) else content
    if random.random() < 0.25:
        return text_changed(random, text.encode())
    values = [json.loads(text)]
    for _ in range(random.choice((1, 1, 2))):
        holder, key = random.choice(list(_places(values)))
        kind = random.randrange(5)
        if kind == 0 and holder is not values:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice(list(holder)) + random.choice(("", "x"))] = holder[key]
        elif kind == 2 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * random.choice((-1, 2, 1000, 0.5)) + random.choice((0, 1, -1))
        elif kind == 3 and isinstance(holder[key], list):
            holder[key] = holder[key] * random.choice((0, 2, 3))
        else:
            holder[key] = random.choice(INTERESTING)
    return json.dumps(values[0]).encode()


def _places(values: Any) -> Any:
    """Every container and key of a value within."""
    for key in values if isinstance(values, dict) else range(len(values)):
        yield values, key
        if isinstance(values[key], dict | list):
            yield from _places(values[key])
