"""JSON that readers would take differently is refused."""

import pytest

from earmark.model_file.strict_json import parse_json


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, "\\u00fc \\ud83d\\ude00 ü"]}', " 0 "])
def test_valid_json_is_parsed_from_text_and_bytes(text: str) -> None:
    assert parse_json(text) == parse_json(text.encode()) == parse_json(b"\xef\xbb\xbf" + text.encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "too large"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is repeated"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 100_000, "nested"),
        ("[1", "delimiter"),
        ("1" * 5000, "digits"),
        (b'["\xff"]', "decode"),
        (b'["\xed\xa0\x80"]', "decode"),
    ],
)
def test_other_json_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)
