"""A folder of static files: the page, a model, and ONNX Runtime Web, which runs it in the browser.

Conventions: all addresses in it are relative, so that it works from any path of any server; nothing is
fetched from elsewhere. The folder is replaced as a whole.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from pathlib import Path

from earmark.errors import DataError
from earmark.serve.browser_model import CARD, BrowserModel
from earmark.serve.onnxruntime_web import WebRuntime, web_runtime_notices
from earmark.version import __version__

INDEX, CONFIG, NOTICE = "index.html", "config.json", "NOTICE.txt"
RUNTIME, MODEL, LICENCES = "onnxruntime", "model", "licences"
"""Folders of a page."""
_BODY = b"<body>"
_UNSERVED = b"""<body>
  <style>
    @keyframes unserved { to { visibility: visible } }
    #unserved { position: fixed; inset: auto 0 0; margin: 0; padding: 1em; background: #fc6; color: #000;
      visibility: hidden; z-index: 9; animation: unserved 0s 2s forwards }
  </style>
  <p id="unserved">The page is still loading. If it was opened as a file, it cannot: browsers run it only
    from a server. Run <code>python -m http.server --bind 127.0.0.1 8080</code> in its folder, then open
    <a href="http://127.0.0.1:8080">http://127.0.0.1:8080</a>.</p>
  <script type="module" src="served.js"></script>"""
"""What a browser shows where no module runs, without a script: served.js removes it."""
PARTIAL, PREVIOUS = ".partial", ".previous"
"""Suffixes of folders beside the page while it is replaced."""


@dataclass(frozen=True)
class StaticPage:
    """A page that was written.

    Args:
        folder: Where it is.
        size: Bytes of all its files.
        model: Its model.
    """

    folder: Path
    size: int
    model: BrowserModel

    def summary(self) -> str:
        """How the model was verified, where the page is, and how to look at it, for people."""
        return (
            f"differences from the model:\n{self.model.exported.verification.summary()}\n"
            f"wrote {self.folder} ({self.size / 1e6:.1f} MB); to open it: "
            f"python -m http.server --bind 127.0.0.1 --directory {self.folder} 8080, then http://127.0.0.1:8080"
        )


def require_page_folder(folder: Path, force: bool = False) -> None:
    """Refuses a folder that holds anything but a page, unless ``force`` is set.

    Raises:
        DataError: If the folder is no page; or if it is the current one, one above it, or the home folder.
    """
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents, Path(os.path.expanduser("~"))):
        raise DataError(f"{folder}: a page needs a folder of its own: choose a new one")
    if not os.path.lexists(folder) or _is_page(folder) or force:
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise DataError(
            f"{folder}: exists and is not a page of earmark: choose another, or replace it with --force"
        )


def write_page(folder: Path, model: BrowserModel, runtime: WebRuntime, *, force: bool = False) -> StaticPage:
    """Writes a page.

    Args:
        folder: Where; a page that is there is replaced as a whole, and so is what else lies in it.
        model: Of the page.
        runtime: What runs it.
        force: Whether to replace a folder that is no page.

    Raises:
        DataError: As :func:`require_page_folder`.
        OSError: If the folder cannot be written; what was there is then unchanged.
    """
    require_page_folder(folder, force)
    contents = _contents(model, runtime)
    with _replaced(folder) as fresh:
        for name, content in contents.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
    return StaticPage(folder, sum(map(len, contents.values())), model)


def _contents(model: BrowserModel, runtime: WebRuntime) -> dict[str, bytes]:
    """Path within the page -> content."""
    config = {"backend": "local", "earmark": __version__}
    page = dict(_page_files(package_files("earmark") / "serve" / "page"))
    assert _BODY in page[INDEX]
    return {
        **page,
        INDEX: page[INDEX].replace(_BODY, _UNSERVED, 1),
        CONFIG: json.dumps(config).encode(),
        **{f"{MODEL}/{name}": content for name, content in model.files.items()},
        f"{MODEL}/{CARD}": json.dumps(model.card, ensure_ascii=False).encode(),
        **{f"{RUNTIME}/{name}": content for name, content in runtime.files.items()},
        **_licences(model, runtime),
    }


def _page_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _page_files(entry, f"{name}/")
        elif not entry.name.startswith("."):
            yield name, entry.read_bytes()


def _licences(model: BrowserModel, runtime: WebRuntime) -> dict[str, bytes]:
    """The notice of all parts, and the texts that it refers to."""
    info = model.info
    texts = {"earmark.txt": _own_licence()}
    texts |= {f"onnxruntime-{name}": content for name, content in web_runtime_notices().items()}
    texts |= {"model.md": info.card.encode()}
    texts = {f"{LICENCES}/{name}": content for name, content in texts.items() if content}
    parts = [
        f"The page: earmark {__version__}, MIT licence.",
        f"The model: {info.name}, licence: {info.license or 'not stated'}.",
        f"Source of the model: {info.source or 'not stated'}.",
        f"ONNX Runtime Web {runtime.version}: MIT licence, Copyright (c) Microsoft Corporation.",
        f"Texts: {', '.join(sorted(texts))}; those of vendored modules lie beside them.",
    ]
    return {NOTICE: "\n".join([*parts, ""]).encode(), **texts}


def _own_licence() -> bytes:
    with suppress(PackageNotFoundError, OSError):
        found = [path for path in distribution("earmark").files or () if path.name == "LICENSE"]
        if found:
            return Path(str(found[0].locate())).read_bytes()
    return b""


def _is_page(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, Mapping) and "earmark" in config and (folder / INDEX).is_file()


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the block ends without an error.

    Between two renames the previous folder has a hidden name beside it; the next run puts back what a killed
    one left there. Nothing else may be writing the same page.
    """
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    previous = target.with_name(f".{target.name}{PREVIOUS}")
    if previous.exists() and not target.exists():
        previous.rename(target)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(PARTIAL, f".{target.name}.", target.parent))
    try:
        yield fresh
        fresh.chmod(0o777 & ~_umask())
        _remove(previous)
        had_one = target.exists()
        if had_one:
            target.rename(previous)
        try:
            fresh.rename(target)
        except OSError:
            if had_one:
                previous.rename(target)
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _remove(previous)


def _remove(previous: Path) -> None:
    if previous.is_dir() and not previous.is_symlink():
        shutil.rmtree(previous, ignore_errors=True)
    else:
        previous.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
