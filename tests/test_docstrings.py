"""Examples in docstrings are true.

pytest's own doctest collection would import the files under their bare names; here every module
is imported as hullward.…
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "data", "models", "tools", "training", "ui")
WITH_EXAMPLES = sorted(
    ".".join(("hullward", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example that writes does not write here
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0, f"{name} shows >>> where doctest does not look"
    assert result.failed == 0
