"""A view of a file with a replaced head reads as a file of its own."""

import io

from earmark.audio.soundfile_reader import View


def test_view_has_another_head_however_it_is_read():
    for size in range(1, 12):
        view = View(io.BytesIO(b"0123456789"), b"ab", 5)
        read = b"".join(iter(lambda view=view, size=size: view.read(size), b""))
        assert read == b"ab56789"
    assert view.seek(-3, 2) == 4
    assert view.read(1) == b"7"
    assert view.tell() == 5
    assert view.seek(-4, 1) == 1
    assert view.read(1) == b"b"
