"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write a file, text as UTF-8, so that readers see all of it or what was there before.

    The folder must exist. When this returns, the file survives a power cut. Raises OSError, and
    leaves nothing behind.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def put_in_place(finished: Path, path: Path) -> None:
    """Flush a finished file of the same folder to the disk and give it its name."""
    handle = os.open(finished, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(finished, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make new and renamed entries of a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def timestamp(moment: datetime | None = None) -> str:
    """UTC, to the millisecond, sortable as text."""
    moment = moment or datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
