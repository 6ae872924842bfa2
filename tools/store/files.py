"""Files that are there whole or not at all, and show whether they were changed since."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_COPIED_AT_ONCE = 2**22  # bytes
_SEAL = re.compile(r',"sum":"([0-9a-f]{16})"\}\s*$')


def sealed(text: str) -> str:
    """A JSON object with one more field at its end, `sum`: the checksum of everything before."""
    body = text.rstrip().removesuffix("}")
    return f'{body},"sum":"{_checksum(body)}"}}'


def unsealed(content: bytes | str, *, required: bool = True) -> str:
    """The JSON object that was sealed.

    Raises ValueError where the checksum differs, or where there is none. required: False for files
    that earlier versions wrote without one; these come back as they are.
    """
    text = content if isinstance(content, str) else content.decode()
    seal = _SEAL.search(text)
    if seal is None:
        if required:
            raise ValueError("it has no checksum")
        return text
    body = text[: seal.start()]
    if _checksum(body) != seal[1]:
        raise ValueError("its checksum differs: it was changed after it was written")
    return body + "}"


def _checksum(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()


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


def sweep(folder: Path) -> None:
    """Remove what writers killed within `write_whole` left in a folder an hour ago or earlier."""
    for path in folder.glob(".*.part"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


def put_in_place(finished: Path, path: Path) -> None:
    """Flush a finished file of the same folder to the disk and give it its name."""
    flush(finished)
    os.replace(finished, path)
    flush(path.parent)


def copy_open_file(handle: int, path: Path) -> None:
    """Write all that an open file holds to a new one, by the system itself where it can."""
    with path.open("wb", buffering=0) as out:
        with suppress(OSError, AttributeError):  # not here, or not on this file system
            while os.copy_file_range(handle, out.fileno(), _COPIED_AT_ONCE, out.tell()):
                pass
        while part := os.pread(handle, _COPIED_AT_ONCE, out.tell()):
            out.write(part)


def flush(path: Path) -> None:
    """Make a file, or the new and renamed entries of a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def timestamp() -> str:
    """UTC, to the millisecond, sortable as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
