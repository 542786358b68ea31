"""Static pages without a browser: what lies in the folder, how it is replaced, and ONNX Runtime Web."""

import base64
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from one_line import assert_one_line
from web import error, serving

import earmark
from earmark.errors import DataError, ModelError
from earmark.export.export import Exported
from earmark.export.verify import Verification
from earmark.model_file.info import ModelInfo
from earmark.serve import onnxruntime_web
from earmark.serve.browser_model import BrowserModel
from earmark.serve.onnxruntime_web import WebRuntime, web_runtime
from earmark.serve.static_page import require_page_folder, write_page

Run = Callable[..., tuple[int, str, str]]
RUNTIME = WebRuntime("1.2.3", {"ort.wasm.bundle.min.js": b"module", "ort-wasm-simd-threaded.wasm": b"wasm"})


@pytest.fixture
def model(info: ModelInfo) -> BrowserModel:
    exported = Exported(info, Verification(()), (), (1, 1))
    return BrowserModel(info, {"name": info.name}, {"model.onnx": b"graph"}, exported)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_folder_has_all_that_a_page_needs(model: BrowserModel, tmp_path: Path) -> None:
    page = write_page(tmp_path / "a" / "page", model, RUNTIME)
    files = contents(page.folder)
    assert page.size == sum(map(len, files.values()))
    assert json.loads(files["config.json"])["backend"] == "local"
    assert files["model/model.onnx"] == b"graph"
    assert json.loads(files["model/model.json"]) == {"name": "toy"}
    assert {files["onnxruntime/ort.wasm.bundle.min.js"], files["licences/model.md"]} == {
        b"module",
        model.info.card.encode(),
    }
    assert b"MIT License" in files["licences/onnxruntime-LICENSE"]
    assert all(text in files["NOTICE.txt"].decode() for text in ("toy", "1.2.3", "MIT"))
    assert list(page.folder.parent.iterdir()) == [page.folder]


def test_no_file_of_the_page_names_another_server(model: BrowserModel, tmp_path: Path) -> None:
    """Nor an absolute path, so that a page works below any path."""
    files = contents(write_page(tmp_path / "page", model, RUNTIME).folder)
    for name, content in files.items():
        if name.endswith((".html", ".js", ".css")) and "/vendor/" not in name:
            text = content.decode()
            for mark in (
                'import "http',
                'from "http',
                'from "/',
                'src="/',
                'src="http',
                'fetch("http',
                "cdn",
            ):
                assert mark not in text, name


def test_a_page_is_replaced_as_a_whole(model: BrowserModel, tmp_path: Path) -> None:
    folder = write_page(tmp_path / "page", model, RUNTIME).folder
    (folder / "of_an_older_version.js").write_text("")
    other = WebRuntime("2", dict.fromkeys(RUNTIME.files, b"newer"))
    files = contents(write_page(folder, model, other).folder)
    assert files["onnxruntime/ort.wasm.bundle.min.js"] == b"newer"
    assert "of_an_older_version.js" not in files
    assert list(tmp_path.iterdir()) == [folder]


def test_other_folders_are_refused(
    model: BrowserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    write_page(folder, model, RUNTIME)  # an empty folder is none of these
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match="--force"):
        write_page(folder, model, RUNTIME)
    assert (folder / "config.json").read_text() == "{}"
    write_page(folder, model, RUNTIME, force=True)
    require_page_folder(folder)
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match="--force"):
        require_page_folder(tmp_path / "file")
    monkeypatch.chdir(folder)
    for path in (Path(), tmp_path, Path.home()):
        with pytest.raises(DataError, match="folder of its own"):
            require_page_folder(path, force=True)


def test_what_was_there_stays_if_writing_fails(
    model: BrowserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_page(tmp_path / "page", model, RUNTIME).folder
    before, rename = contents(folder), Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("disk on fire")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="fire"):
        write_page(folder, model, WebRuntime("2", {"new.js": b""}))
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


KILLED = """
import sys
from pathlib import Path
from earmark.export.export import Exported
from earmark.export.verify import Verification
from earmark.serve.browser_model import BrowserModel
from earmark.serve.onnxruntime_web import WebRuntime
from earmark.serve.static_page import write_page
sys.path.insert(0, sys.argv[2])
from toy_model import INFO
model = BrowserModel(INFO, {}, {}, Exported(INFO, Verification(()), (), (1, 1)))
print("ready", flush=True)
while True:
    write_page(Path(sys.argv[1]), model, WebRuntime("2", {f"{number}.js": b"new" for number in range(200)}))
"""


@pytest.mark.slow
def test_a_killed_run_leaves_a_whole_page(model: BrowserModel, tmp_path: Path) -> None:
    folder = write_page(tmp_path / "page", model, RUNTIME).folder
    tests = Path(__file__).parents[1]
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(folder), str(tests)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
        whole = folder if folder.exists() else folder.with_name(".page.previous")
        files = {name for name in contents(whole) if name.startswith("onnxruntime/")}
        assert len(files) in (len(RUNTIME.files), 200)
    write_page(folder, model, RUNTIME)
    assert contents(folder)["onnxruntime/ort.wasm.bundle.min.js"] == b"module"
    assert list(tmp_path.iterdir()) == [folder]


def package(**changed: bytes) -> bytes:
    """An npm package with the files that a page needs."""
    names = {path: b"content of " + path.encode() for path in onnxruntime_web.FILES}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in {**names, "package.json": b"{}", **changed}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> bytes:
    content = package()
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", f"sha512-{digest}")
    monkeypatch.setattr(onnxruntime_web, "SIZE", len(content))
    return content


def test_the_package_is_downloaded_once(
    pinned: bytes, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        server.body = pinned
        monkeypatch.setenv("EARMARK_NPM_REGISTRY", f"{server.url}/mirror/")
        found = [web_runtime() for _ in range(2)]
        assert [path for path, _ in server.requests] == [
            f"/mirror/onnxruntime-web/-/onnxruntime-web-{onnxruntime_web.VERSION}.tgz"
        ]
    assert found[0] == found[1]
    assert found[0].files["ort-wasm-simd-threaded.wasm"].endswith(b"threaded.wasm")
    [cached] = own_cache.iterdir()
    cached.write_bytes(b"damaged")
    with serving() as server:
        server.body = pinned
        monkeypatch.setenv("EARMARK_NPM_REGISTRY", server.url)
        assert web_runtime() == found[0]


def test_another_package_is_refused(pinned: bytes, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.body = bytes(len(pinned))
        server.behaviours = [*server.behaviours, error(404)]
        monkeypatch.setenv("EARMARK_NPM_REGISTRY", server.url)
        for problem in ("SHA-512", "404"):
            with pytest.raises(ModelError, match=f"{problem}.*--onnxruntime-web FOLDER"):
                web_runtime()
    assert list(own_cache.iterdir()) == []


def test_an_unpacked_package(tmp_path: Path) -> None:
    for name in onnxruntime_web.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    about = tmp_path / "package.json"
    about.write_text(json.dumps({"name": "onnxruntime-web", "version": "1.9.0"}))
    runtime = web_runtime(tmp_path)
    assert (runtime.version, set(runtime.files.values())) == ("1.9.0", {b"content"})
    for damage in (lambda: about.write_text('{"name": "left-pad"}'), about.unlink):
        damage()
        with pytest.raises(ModelError, match="npm package onnxruntime-web"):
            web_runtime(tmp_path)


@pytest.mark.slow
def test_without_pytorch_the_error_names_the_extra(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from earmark.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "export", "--page", str(tmp_path / "page")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert_one_line(done.stderr, "earmark[train]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_command(
    run: Run, toy_model: Path, tmp_path: Path, pinned: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        server.body = pinned
        monkeypatch.setenv("EARMARK_NPM_REGISTRY", server.url)
        code, out, err = run("export", toy_model, "--page", tmp_path / "page", "--name", "mine")
    assert (code, err) == (0, "")
    assert "http.server" in out
    card = json.loads((tmp_path / "page" / "model" / "model.json").read_text())
    assert (card["name"], card["labels"], card["sample_rate_hz"]) == ("mine", ["tone", "noise"], 8000)
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    scores = [
        earmark.load(one).tag(noise, 8000).scores for one in (toy_model, tmp_path / "page/model/model.onnx")
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "--output"),
        (("--page", "page", "--output", "a.onnx"), "--output"),
        (("--page", "page", "--target", "onnx"), "--target"),
        (("--output", "a.onnx", "--force"), "--force"),
        (("--page", "."), "folder of its own"),
        (("--page", "full"), "--force"),
        (("--page", "page", "--onnxruntime-web", "full"), "npm package"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(
    run: Run,
    toy_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    code, out, err = run("export", toy_model, *options)
    assert (code, out) == (2, "")
    assert_one_line(err, problem)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "letter.txt"]
