def assert_one_line(text: str, *parts: str) -> None:
    """Asserts that standard error holds one error, in one line, that names these parts."""
    assert text.startswith("earmark: ")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    for part in parts:
        assert part in text
