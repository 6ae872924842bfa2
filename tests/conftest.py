"""Fixtures for all tests; real data is looked for beside the project."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED.parent.name}/{SHARED.name} beside the project")
    return SHARED
