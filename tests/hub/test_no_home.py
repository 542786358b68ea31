"""Without HOME and without an entry in the password file, what ships works; only downloads need a folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import earmark
from earmark.errors import ModelError
from earmark.hub import registry


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("EARMARK_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)


@pytest.mark.usefixtures("homeless")
def test_models_are_found_without_a_home() -> None:
    assert registry.find().name == f"{registry.DEFAULT}.onnx"
    assert registry.lookup("mn10_as") is None
    assert not registry.published_model("mn10_as").is_cached
    with pytest.raises(ModelError, match=f"set the environment variable {registry.CACHE_VARIABLE}"):
        registry.cache_folder()


def test_a_user_without_an_entry_can_tag() -> None:
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become a user without an entry")
    clip = Path(earmark.__file__).parents[1] / "examples" / "siren_and_bell.ogg"
    command = ["setpriv", "--reuid", "4242", "--clear-groups", sys.executable, "-m", "earmark"]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    can_import = subprocess.run(
        [*command[:5], "-c", "import earmark"], env=environment, capture_output=True, check=False
    )
    if can_import.returncode:
        pytest.skip("such a user may not read this checkout or its Python")
    for arguments in (["tag", str(clip), "--top", "1", "--threads", "1"], ["models"]):
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments
