"""Every case file has its right outcome in a table."""

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent


def outcomes():
    """The paths in the table EXPECTED of every module here."""
    for path in sorted(HERE.glob("test_*.py")):
        if "\nEXPECTED" not in path.read_text(encoding="utf-8"):
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield from module.EXPECTED


def test_no_case_file_is_left_out_and_none_is_missing():
    files = HERE / "files"
    present = {path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()}
    assert present == set(outcomes())
