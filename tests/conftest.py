from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and goldens that lies beside the project and is never committed."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the project: its recordings and goldens are not committed")
    return SHARED
