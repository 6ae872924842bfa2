"""Fixtures for all tests; real data is looked for beside the project."""

from pathlib import Path

import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# How long one example takes says more about the machine than about the code.
settings.register_profile("hullward", deadline=None)
settings.load_profile("hullward")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED.parent.name}/{SHARED.name} beside the project")
    return SHARED
