"""``earmark serve``: what it refuses to start with."""

import socket
from pathlib import Path

import pytest
from one_line import assert_one_line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_need_a_token(run, host: str) -> None:
    code, out, err = run("serve", "--host", host, "--port", 0)
    assert (code, out) == (2, "")
    assert_one_line(err, "--token")


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "a\nb"])
def test_tokens_that_no_header_can_hold(run, token: str) -> None:
    code, _, err = run("serve", "--token", token, "--port", 0)
    assert code == 2
    assert_one_line(err, "token")


def test_a_file_of_a_token_that_is_not_there(run, tmp_path: Path) -> None:
    code, _, err = run("serve", "--token-file", tmp_path / "none", "--port", 0)
    assert code == 2
    assert_one_line(err, "none")


def test_a_port_that_is_taken(run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, err = run("serve", "--port", port)
    assert (code, out) == (2, "")
    assert_one_line(err, str(port))


def test_a_name_that_does_not_exist(run) -> None:
    code, _, err = run("serve", "--host", "no.such.host.invalid", "--without-token", "--port", 0)
    assert code == 2
    assert_one_line(err, "no.such.host.invalid")


@pytest.mark.parametrize(
    ("option", "value"), [("--max-mb", 0), ("--max-duration", 0), ("--queue", -1), ("--timeout", "nan")]
)
def test_impossible_limits(run, option: str, value: object) -> None:
    code, _, err = run("serve", option, value, "--port", 0)
    assert code == 2
    assert_one_line(err, "must be at least")


def test_models_are_opened_before_anything_is_served(run, tmp_path: Path, toy_model: Path) -> None:
    code, _, err = run("serve", "--model", tmp_path / "none.onnx", "--port", 0)
    assert code == 2
    assert_one_line(err, "none.onnx")
    code, _, err = run("serve", "--model", toy_model, "--model", toy_model, "--port", 0)
    assert code == 2
    assert_one_line(err, "toy")
