"""Read real CIF in a child process with limits on time, memory and rights.

CIF is a large format, and it has carried code before (CVE-2024-23346). So this module checks the
size of the text, `hullward.tools.crystal.files.cif_worker` parses it in the child, and the plain
numbers that come back are checked again here.
"""

from __future__ import annotations

import io
import json
import os
import re
import selectors
import subprocess
import sys
import time
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from typing import IO, Any

from hullward.models.crystal import Crystal
from hullward.models.errors import PreflightError
from hullward.tools.crystal.input_checks import MAX_SITES, checked_crystal, shorten
from hullward.tools.records import Flaw, Reason

START_S = 120.0  # to import the parser on a busy machine
MAX_REPLY_BYTES = 64_000_000
WORKER = "hullward.tools.crystal.files.cif_worker"

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BYTE_ORDER_MARK = "\ufeff"
ATOMS = re.compile(r"_atom_site[_.]", re.I)
OPERATOR_CHARACTERS = "0123456789xyzXYZ+-/*.,'\" \t"


@dataclass(frozen=True, kw_only=True)
class CifLimits:
    """Limits on one CIF."""

    max_bytes: int = 1_000_000
    max_sites: int = MAX_SITES  # in the asymmetric unit, and again in the cell
    max_operators: int = 192  # the largest space groups have 192
    wall_s: float = 10.0
    memory_bytes: int = 2 << 30  # address space of the child


class CifReader:
    """Reads many CIFs with one child, started on first use and again after a violated limit.

    A context manager; several threads must not share one.
    """

    def __init__(self, limits: CifLimits | None = None) -> None:
        self.limits = limits or CifLimits()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> CifReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; a later read starts another."""
        if self._child is None:
            return
        self._child.kill()
        self._child.communicate()
        self._child = None

    def read(self, text: str) -> list[Crystal] | Flaw:
        """Every crystal in a CIF, in order, or its first flaw.

        Raises PreflightError if the child cannot start.
        """
        text = text.removeprefix(BYTE_ORDER_MARK)
        if flaw := oversize(text, self.limits):
            return flaw
        if not text.strip():
            return Flaw(reason=Reason.EMPTY, detail="no text")
        reply = self._ask(split_blocks(text))
        if isinstance(reply, Flaw):
            return reply
        if "reason" in reply:
            return Flaw(reason=Reason(reply["reason"]), detail=str(reply["detail"]))
        crystals = []
        for found in reply["crystals"]:
            crystal = checked_crystal(
                found["lattice"], found["species"], found["coords"], Reason.BAD_CIF
            )
            if isinstance(crystal, Flaw):
                return crystal
            crystals.append(crystal)
        return crystals

    def _ask(self, blocks: list[str]) -> dict[str, Any] | Flaw:
        """Send one request and return the reply; end a child that breaks a limit."""
        child = self._running()
        request = {
            "blocks": blocks,
            "max_sites": self.limits.max_sites,
            "max_operators": self.limits.max_operators,
            "wall_s": self.limits.wall_s,
        }
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            return _reply(child.stdout, self.limits.wall_s)
        except TimeoutError:
            self.close()
            detail = f"not parsed within {self.limits.wall_s:g} s"
            return Flaw(reason=Reason.TIMEOUT, detail=detail)
        except (OSError, ValueError) as error:
            self.close()
            return Flaw(reason=Reason.BAD_CIF, detail=f"the reading process ended: {error}")

    def _running(self) -> subprocess.Popen[bytes]:
        """The child, started and ready."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        # the child gets no keys or tokens from our environment, only the path of modules
        module_path = os.pathsep.join(entry for entry in sys.path if os.path.isabs(entry))
        self._child = subprocess.Popen(
            # -P: a stray module in the user's folder is never imported
            [sys.executable, "-P", "-m", WORKER, str(self.limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": module_path, **ONE_THREAD},
        )
        assert self._child.stdout is not None
        try:
            ready = _reply(self._child.stdout, START_S)
        except (OSError, ValueError) as error:
            self.close()
            ready = {"error": str(error) or f"no reply in {START_S:g} s"}
        if "error" in ready:
            self.close()
            raise PreflightError(
                f"The CIF reader's process did not start: {ready['error']}. It needs gemmi "
                f"importable by {sys.executable} and {self.limits.memory_bytes >> 20} MiB."
            )
        return self._child


def read_cif(text: str, limits: CifLimits | None = None) -> list[Crystal] | Flaw:
    """The crystals of one CIF, read with a child of its own; for many use a `CifReader`."""
    with CifReader(limits) as reader:
        return reader.read(text)


def split_blocks(text: str) -> list[str]:
    """The data blocks of a CIF that list atoms, verbatim; the whole text if none does.

    Blocks without atoms (authors, journal) hold no crystals.
    """
    blocks: list[list[str]] = [[]]
    in_text_field = False
    for line in io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline=""):
        if line.startswith(";"):
            in_text_field = not in_text_field
        elif not in_text_field and line.lstrip()[:5].lower() == "data_":
            blocks.append([])
        blocks[-1].append(line)
    with_atoms = [block for lines in blocks if ATOMS.search(block := "".join(lines))]
    return with_atoms if len(blocks) > 1 and with_atoms else [text]


def decode_cif(data: bytes) -> str:
    """The text of a CIF: UTF-8, UTF-16 with its mark, or Latin-1 as in older files."""
    encoding = "utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def oversize(text: str, limits: CifLimits) -> Flaw | None:
    """The flaw of a text that is too large to be parsed."""
    size = len(text.encode(errors="surrogatepass"))
    if size > limits.max_bytes:
        detail = f"{size} bytes, limit {limits.max_bytes}"
        return Flaw(reason=Reason.TOO_LARGE, detail=detail)
    for block in split_blocks(text):
        operators = sum(
            line.count(",") == 2 and not line.strip(OPERATOR_CHARACTERS)
            for line in block.splitlines()
        )
        if operators > limits.max_operators:
            detail = f"{operators} symmetry operators, limit {limits.max_operators}"
            return Flaw(reason=Reason.TOO_LARGE, detail=detail)
    return None


def _reply(stream: IO[bytes], limit_s: float) -> dict[str, Any]:
    """The next JSON line. Raises TimeoutError, OSError if the child is gone, or ValueError."""
    deadline = time.monotonic() + limit_s
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                raise OSError("no reply; it was probably killed for breaking a limit")
            received += chunk
            if len(received) > MAX_REPLY_BYTES:
                raise OSError(f"a reply of more than {MAX_REPLY_BYTES} bytes")
    reply = json.loads(received)
    if not isinstance(reply, dict):
        raise ValueError(f"expected an object as reply, found {shorten(str(reply))}")
    return reply
