"""A copy of an open file is whole, whether or not the system can copy by itself."""

import errno
import os
from pathlib import Path

import pytest

from hullward.tools.store import files

CONTENT = bytes(range(256)) * 4096


def copied(tmp_path: Path) -> bytes:
    (tmp_path / "from").write_bytes(CONTENT)
    handle = os.open(tmp_path / "from", os.O_RDONLY)
    try:
        os.lseek(handle, 1000, os.SEEK_SET)  # wherever the handle stands
        files.copy_open_file(handle, tmp_path / "to")
    finally:
        os.close(handle)
    return (tmp_path / "to").read_bytes()


@pytest.mark.parametrize("at_once", [1000, 2**22])
def test_a_copy_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(files, "_COPIED_AT_ONCE", at_once)
    assert copied(tmp_path) == CONTENT


def test_a_copy_is_whole_where_the_system_has_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    assert copied(tmp_path) == CONTENT


def test_a_copy_is_whole_where_the_system_gives_up_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(_: int, out: int, __: int, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, "no more")
        return os.write(out, CONTENT[:5000])

    monkeypatch.setattr(os, "copy_file_range", some, raising=False)
    assert copied(tmp_path) == CONTENT
