"""Commands to the writer of a directory: one small file each, from any process, read in order.

A command is delivered at least once: it is applied, then acknowledged. Its id follows from its
content, so the same command sent twice before it is read is one command.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hullward.models.errors import InputError, first_problem
from hullward.tools.records import Record, stable_id
from hullward.tools.store.files import flush, timestamp, write_whole

NAME = "inbox"
DONE = "done"
BAD = "bad"
MAX_BYTES = 64 * 1024

Kind = Literal["stop", "rejudge"]
logger = logging.getLogger(__name__)


class _Message(Record):
    command_id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,80}$")]
    kind: Kind
    payload: dict[str, Any]
    sent: str  # UTC


class Command(_Message):
    """A command to the writer, and its file."""

    path: Path


def send(
    directory: Path, kind: Kind, payload: dict[str, Any], *, command_id: str | None = None
) -> str:
    """Leave a command for the writer of a directory; returns its id.

    By default the id is made from kind and payload: the same command is one until it is
    acknowledged. Raises InputError for an unknown kind or an id that cannot be a file name.
    """
    fields = {
        "command_id": command_id or stable_id("k", kind, payload),
        "kind": kind,
        "payload": payload,
        "sent": timestamp(),
    }
    try:
        message = _Message.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"cannot send this command: {first_problem(error)}") from error
    inbox = directory / NAME
    inbox.mkdir(exist_ok=True)
    target = inbox / f"{message.command_id}.json"
    if not target.exists():
        write_whole(target, message.model_dump_json())
    return message.command_id


def drain(directory: Path) -> list[Command]:
    """The commands waiting, oldest first; they stay until acknowledged.

    A file that is not a command moves to inbox/bad, with the reason beside it.
    """
    inbox = directory / NAME
    if not inbox.is_dir():
        return []
    commands = []
    for path in sorted(inbox.iterdir()):
        if path.name.startswith(".") or path.name in (DONE, BAD):
            continue
        try:
            message = _read(path)
        except FileNotFoundError:  # acknowledged or replaced meanwhile
            continue
        except (OSError, ValueError) as error:
            refuse(path, _one_line(error))
            continue
        commands.append(Command(**message.model_dump(), path=path))
    return sorted(commands, key=lambda command: (command.sent, command.command_id))


def acknowledge(command: Command) -> None:
    """Move an applied command to inbox/done; doing it twice is fine."""
    done = command.path.parent / DONE
    done.mkdir(exist_ok=True)
    try:
        os.replace(command.path, done / command.path.name)
    except FileNotFoundError:
        return
    flush(command.path.parent)


def refuse(path: Path, reason: str) -> None:
    """Move a file that cannot be carried out to inbox/bad, with the reason beside it."""
    bad = path.parent / BAD
    bad.mkdir(exist_ok=True)
    os.replace(path, bad / path.name)
    note = {"file": path.name, "reason": reason, "moved": timestamp()}
    write_whole(bad / f"{path.name}.reason", json.dumps(note))
    logger.warning("inbox: %s was refused (%s); moved to %s/%s", path.name, reason, NAME, BAD)


def _read(path: Path) -> _Message:
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a plain file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    message = _Message.model_validate_json(path.read_bytes())
    if path.name != f"{message.command_id}.json":
        raise ValueError(f"the command inside is called {message.command_id!r}")
    return message


def _one_line(error: Exception) -> str:
    return first_problem(error) if isinstance(error, ValidationError) else str(error)
