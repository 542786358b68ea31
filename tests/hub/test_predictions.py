"""Published predictions of a teacher arrive whole and checked, and a run learns from them by name."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from published_case import sha256
from web import error, serving, whole

from earmark.cli import main
from earmark.errors import ModelError
from earmark.hub import download, registry
from earmark.hub.download import RetryPolicy
from earmark.hub.predictions import pull_predictions
from earmark.training.distill.stored_predictions import StoredPredictions

ROWS = np.random.default_rng(0).normal(size=(3, 527)).astype(np.float16)


def content(rows: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows)
    return stream.getvalue()


TABLE = content(ROWS)
INDEX = pickle.dumps({"-0RWZT-miFs": 2, "Y0abcDEFghi": 0})


@pytest.fixture
def web():
    with serving() as server:
        server.bodies = {"/logits.npy": TABLE, "/index.pkl": INDEX}

        def behave(request):
            server.body = server.bodies[request.path]
            whole(request)

        server.behaviours = [behave]
        yield server


@pytest.fixture(autouse=True)
def cache(web, tmp_path, monkeypatch) -> Path:
    known = f'url = "{web.url}/logits.npy", size = {len(TABLE)}, sha256 = "{sha256(TABLE)[:16]}"'
    index = f'index = {{ url = "{web.url}/index.pkl" }}'
    facts = (
        'labels = "audioset"\nkind = "logits"\ndescription = "of a test"\nlicense = "MIT"\nsource = "a test"'
    )
    lines = ["[families]", "[models]"]
    for name, table in {"known": known, "unknown": f'url = "{web.url}/logits.npy"'}.items():
        lines += [f"[predictions.{name}]", f"table = {{ {table} }}", index, facts]
    path = tmp_path / "registry.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(registry, "_TABLE", path)
    monkeypatch.setattr(download, "RETRY", RetryPolicy(timeout_s=10, attempts=2, pause_s=0.001))
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_they_are_fetched_once_and_read_by_clip(web, cache):
    stored = StoredPredictions.published("known")
    assert stored.read(stored.find(["Y0abcDEFghi", "-0RWZT-miFs"])).tolist() == ROWS[[0, 2]].tolist()
    assert stored.header.kind == "logits"
    assert stored.header.teachers[0]["sha256"] == sha256(TABLE)
    StoredPredictions.published("known")
    assert len(web.requests) == 2
    kept = {path.name for path in (cache / "predictions" / "known").iterdir() if path.is_file()}
    assert kept == {"logits.npy", "index.pkl", "logits.npy.origin.json", "index.pkl.origin.json"}


def test_another_size_or_hash_is_refused(web, cache):
    web.bodies["/logits.npy"] = content(ROWS[:2])
    with pytest.raises(ModelError, match=r"must have \d+ bytes"):
        pull_predictions("known")
    web.bodies["/logits.npy"] = content(ROWS + 1)
    with pytest.raises(ModelError, match="SHA-256 must start with"):
        pull_predictions("known")
    assert not list(cache.rglob("logits.npy*"))
    web.bodies["/logits.npy"] = TABLE
    assert pull_predictions("known").read_bytes() == TABLE


def test_without_a_known_hash_the_first_download_is_trusted_and_no_other_after(web, cache):
    table = pull_predictions("unknown")
    origin = json.loads(table.with_name("logits.npy.origin.json").read_text())
    assert origin == {"url": f"{web.url}/logits.npy", "size": len(TABLE), "sha256": sha256(TABLE)}
    web.bodies["/logits.npy"] = content(ROWS + 1)
    with pytest.raises(ModelError, match=r"SHA-256 must be .*remove .*logits\.npy\.origin\.json"):
        pull_predictions("unknown", force=True)
    assert table.read_bytes() == TABLE


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/logits.npy", b"<html>\n</html>\n", r"is no \.npy file"),
        (
            "/logits.npy",
            content(ROWS[:, :200]),
            r"must hold 527 predictions .*got float16 of shape \(3, 200\)",
        ),
        ("/index.pkl", b"<html>\n</html>\n", "is no whole pickle"),
        ("/index.pkl", INDEX[:-1], "is no whole pickle"),
    ],
)
def test_what_is_no_prediction_is_not_trusted(web, path, body, problem):
    right = web.bodies[path]
    web.bodies[path] = body
    with pytest.raises(ModelError, match=problem):
        pull_predictions("unknown")
    web.bodies[path] = right
    assert pull_predictions("unknown").is_file()


def test_without_a_network_the_files_are_brought_by_hand(web, cache, tmp_path, capsys):
    web.behaviours = [error(404)]
    with pytest.raises(ModelError, match=r"404.*earmark pull unknown --from logits\.npy"):
        pull_predictions("unknown")
    (tmp_path / "index.pkl").write_bytes(INDEX)
    (tmp_path / "logits.npy").write_bytes(TABLE)
    with pytest.raises(SystemExit, match="0"):
        main(["pull", "unknown", "--from", str(tmp_path / "logits.npy")])
    written = Path(capsys.readouterr().out.strip())
    assert written.read_bytes() == TABLE
    assert pull_predictions("unknown") == written
    with pytest.raises(ModelError, match=r"none\.npy: cannot be read"):
        pull_predictions("unknown", file=tmp_path / "none.npy")


def test_an_unknown_name_names_those_that_exist():
    with pytest.raises(ModelError, match=r"unknown predictions 'none': known, unknown exist"):
        pull_predictions("none")
