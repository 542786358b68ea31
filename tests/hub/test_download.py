"""A file arrives whole or not at all, whatever the server does."""

import pytest
from web import cut, error, lie, redirect, serving, stall, whole, without_length, without_ranges

from earmark.errors import ModelError
from earmark.hub import download as module
from earmark.hub.download import RetryPolicy, download


@pytest.fixture(autouse=True)
def retry(monkeypatch):
    monkeypatch.setattr(module, "RETRY", RetryPolicy(timeout_s=10, attempts=3, pause_s=0.001))


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(module, "RETRY", RetryPolicy(timeout_s=0.3, attempts=3, pause_s=0.001))


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "folder" / "weights.pt"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_and_is_reported(web, target):
    reported = []
    size = len(web.body)
    download(f"{web.url}/a/weights.pt", target, size=size, progress=lambda *numbers: reported.append(numbers))
    assert target.read_bytes() == web.body
    assert left(target) == ["weights.pt"]
    assert reported[-1] == (size, size)
    assert [received for received, _ in reported] == sorted(received for received, _ in reported)


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1", "ten", ""])
def test_a_length_that_is_no_number_does_not_count(web, target, length):
    web.behaviours = [lie(length)]
    download(web.url, target)
    assert target.read_bytes() == web.body


def test_without_a_length_it_arrives_too(web, target):
    web.behaviours = [without_length]
    download(web.url, target)
    assert target.read_bytes() == web.body


def test_an_interrupted_download_resumes(web, target):
    web.behaviours = [cut(100_000), whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert web.ranges == [None, "bytes=100000-"]
    assert web.requests[1][1]["If-Range"] == '"1"'


def test_a_silent_server_is_retried(web, target, short_timeout):
    web.behaviours = [stall(100_000), stall(0), whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert len(web.requests) == 3


def test_a_later_run_resumes_too(web, target):
    web.behaviours = [cut(50_000), cut(0)]
    with pytest.raises(ModelError, match=r"50000 of 307200 bytes; 3 attempts.*received is kept"):
        download(web.url, target)
    assert left(target) == ["weights.pt.part", "weights.pt.part.mark"]
    web.behaviours = [whole]
    web.requests.clear()
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert web.ranges == ["bytes=50000-"]


def test_attempts_with_new_data_reset_the_count(web, target):
    web.behaviours = [cut(60_000)] * 5 + [whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert len(web.requests) == 6


@pytest.mark.parametrize("second", [without_ranges, lambda request: whole(request, '"2"')])
def test_a_server_without_ranges_and_a_changed_file_start_anew(web, target, second):
    web.behaviours = [cut(100_000), second]
    download(web.url, target)
    assert target.read_bytes() == web.body


def test_a_range_of_another_version_is_not_taken(web, target):
    def other_version(request):
        request.start(206, Content_Length=3, Content_Range="bytes 100000-100002/100003", ETag='"2"')
        request.wfile.write(b"bad")

    web.behaviours = [cut(100_000), other_version, whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert web.ranges == [None, "bytes=100000-", None]


def test_without_a_mark_of_the_version_nothing_is_continued(web, target):
    web.behaviours = [cut(100_000, version=""), whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert web.ranges == [None, None]


def test_a_part_that_is_too_long_starts_anew(web, target):
    target.parent.mkdir()
    target.with_name("weights.pt.part").write_bytes(web.body + b"more")
    target.with_name("weights.pt.part.mark").write_text(f'{web.url}\n"1"')
    web.behaviours = [error(416), whole]
    download(web.url, target)
    assert target.read_bytes() == web.body
    assert web.ranges == [f"bytes={len(web.body) + 4}-", None]


def test_temporary_errors_are_retried(web, target):
    web.behaviours = [error(500), error(503), whole]
    download(web.url, target)
    assert target.read_bytes() == web.body


def test_permanent_errors_are_not_retried(web, target):
    web.behaviours = [error(404)]
    with pytest.raises(ModelError, match=r"http.*/weights\.pt cannot be downloaded: the server returned 404"):
        download(f"{web.url}/weights.pt", target)
    assert len(web.requests) == 1
    assert not target.exists()


def test_attempts_end(web, target):
    web.behaviours = [error(500)]
    with pytest.raises(ModelError):
        download(web.url, target)
    assert len(web.requests) == 3


def test_a_silent_server_is_given_up(web, target, short_timeout):
    web.behaviours = [stall(0)]
    with pytest.raises(ModelError):
        download(web.url, target)


@pytest.mark.parametrize(
    ("behaviour", "size"),
    [(lie(1000), 307_200), (lie(10**9), 307_200), (whole, 1000), (whole, 10**6), (without_length, 1000)],
)
def test_another_size_than_the_published_one_is_refused(web, target, behaviour, size):
    web.behaviours = [behaviour]
    with pytest.raises(ModelError, match=rf"must have {size} bytes, got \d+"):
        download(web.url, target, size=size)
    assert len(web.requests) == 1
    assert not target.exists()
    assert left(target) == []


def test_an_empty_file_is_none(web, target):
    web.body = b""
    with pytest.raises(ModelError):
        download(web.url, target)
    assert left(target) == []


def test_a_length_that_never_comes_is_no_file(web, target):
    web.behaviours = [lie(400_000)]
    with pytest.raises(ModelError):
        download(web.url, target)
    assert not target.exists()


@pytest.mark.parametrize("behaviour", [whole, without_length])
def test_more_than_can_be_is_refused(web, target, behaviour):
    web.behaviours = [behaviour]
    with pytest.raises(ModelError):
        download(web.url, target, max_size=1000)
    assert not target.exists()


def test_redirects_are_followed(web, target):
    web.behaviours = [redirect("/elsewhere"), redirect(f"{web.url}/there"), whole]
    download(f"{web.url}/here", target)
    assert target.read_bytes() == web.body
    assert [path for path, _ in web.requests] == ["/here", "/elsewhere", "/there"]


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1", "http://a b/\x7f"]
)
def test_a_redirect_out_of_the_web_is_not_followed(web, target, place):
    web.behaviours = [redirect(place)]
    with pytest.raises(ModelError):
        download(web.url, target)
    assert not target.exists()


def test_a_circle_of_redirects_ends(web, target):
    web.behaviours = [redirect("/round")]
    with pytest.raises(ModelError) as caught:
        download(web.url, target)
    assert "\n" not in str(caught.value)


def test_the_proxy_of_the_environment_is_used(web, target, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    download("http://weights.invalid/file.pt", target)
    assert target.read_bytes() == web.body
    assert web.requests[0][0] == "http://weights.invalid/file.pt"


def test_an_unknown_host_and_a_closed_port(web, target, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        download("http://weights.invalid/file.pt", target)
    with serving() as other:
        closed = other.url
    with pytest.raises(ModelError):
        download(closed, target)


def test_two_do_not_write_the_same_file(web, target):
    target.parent.mkdir()
    with (
        module._locked(target.with_name("weights.pt.part"), web.url),
        pytest.raises(ModelError, match="by another process"),
    ):
        download(web.url, target)
    download(web.url, target)
    assert target.read_bytes() == web.body
