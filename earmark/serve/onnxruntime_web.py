"""The files of ONNX Runtime Web that a static page needs: from a folder, the cache, or npm's registry.

Source: the npm package onnxruntime-web (MIT), pinned by version and SHA-512.

Conventions: a page needs two files of the package: the module, and the WebAssembly, which runs with one
thread or several. Their licence and notices are those of the Python package of ONNX Runtime, because the npm
package has none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.errors import ModelError
from earmark.hub.download import download
from earmark.hub.registry import cache_folder

if TYPE_CHECKING:
    from earmark.hub.download import Progress

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Hash of the package, as in npm's lock files."""
SIZE = 33_106_585
"""Size of the package in bytes."""
REGISTRY_VARIABLE = "EARMARK_NPM_REGISTRY"
"""Environment variable that overrides the address of npm's registry."""
REGISTRY = "https://registry.npmjs.org"
FILES = {
    "dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""File of the package -> its name in a page; some servers do not know the suffix .mjs."""


@dataclass(frozen=True)
class WebRuntime:
    """ONNX Runtime Web.

    Args:
        version: Of the package.
        files: Name in a page -> content.
    """

    version: str
    files: dict[str, bytes]


def web_runtime(folder: Path | None = None, progress: Progress | None = None) -> WebRuntime:
    """Returns the files of ONNX Runtime Web.

    Args:
        folder: An unpacked npm package, of any version; None: the pinned version, from the cache or from
            npm's registry.
        progress: Called during the download.

    Raises:
        ModelError: If the folder is no such package, or the package cannot be downloaded or is not the pinned
            one.
    """
    return _from_folder(folder) if folder is not None else _from_package(_package(progress))


def web_runtime_notices() -> dict[str, bytes]:
    """Returns the licence of ONNX Runtime and the notices of what it contains, by file name."""
    found = find_spec("onnxruntime")
    [folder, *_] = (found.submodule_search_locations if found else None) or [""]
    names = ("LICENSE", "ThirdPartyNotices.txt")
    return {name: Path(folder, name).read_bytes() for name in names if Path(folder, name).is_file()}


def _from_folder(folder: Path) -> WebRuntime:
    try:
        about = json.loads((folder / "package.json").read_bytes())
        files = {name: (folder / path).read_bytes() for path, name in FILES.items()}
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: not an unpacked npm package {PACKAGE} ({error})") from None
    if not isinstance(about, dict) or about.get("name") != PACKAGE:
        raise ModelError(f"{folder}: not the npm package {PACKAGE}: its package.json has another name")
    return WebRuntime(str(about.get("version")), files)


def _package(progress: Progress | None) -> Path:
    """The package in the cache, downloaded if necessary, and checked."""
    path = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    if not path.is_file() or _integrity(path) != INTEGRITY:
        registry = (os.environ.get(REGISTRY_VARIABLE) or REGISTRY).rstrip("/")
        url = f"{registry}/{PACKAGE}/-/{path.name}"
        fresh = path.with_name(f"{path.name}.unchecked")
        try:
            download(url, fresh, size=SIZE, progress=progress)
            if _integrity(fresh) != INTEGRITY:
                raise ModelError(f"{url} is not {PACKAGE} {VERSION}: its SHA-512 is another")
        except ModelError as error:
            fresh.unlink(missing_ok=True)
            raise ModelError(
                f"{error}; or unpack the package yourself and give --onnxruntime-web FOLDER"
            ) from None
        os.replace(fresh, path)
    return path


def _integrity(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def _from_package(path: Path) -> WebRuntime:
    files = {}
    with tarfile.open(path) as package:
        for name, own in FILES.items():
            member = package.extractfile(f"package/{name}")
            assert member is not None  # the hash was checked
            files[own] = member.read()
    return WebRuntime(VERSION, files)
