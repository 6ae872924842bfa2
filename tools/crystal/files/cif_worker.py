"""The child process that parses CIF: JSON lines in on stdin, JSON lines out on stdout.

    python -m hullward.tools.crystal.files.cif_worker MEMORY_BYTES

`hullward.tools.crystal.files.cif` starts it. It lowers its own limits, forbids itself network,
processes and writing, and ends with its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from typing import Any

from hullward.tools.crystal.files.cif_block import RefusedError
from hullward.tools.crystal.files.cif_crystal import read_block
from hullward.tools.crystal.input_checks import shorten
from hullward.tools.records import Reason

GRACE_S = 2.0  # beyond the time limit of the parent, in case the parent is gone
SAMPLE = """data_warm_up
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 3.6
_cell_length_b 3.6
_cell_length_c 3.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _symmetry_equiv_pos_as_xyz
 'x,y,z'
loop_
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 Cu1 0 0 0
"""
FORBIDDEN = (
    "socket.", "subprocess.", "ctypes.", "pty.", "shutil.", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link",
    "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.kill",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # output of libraries is no answer
    try:
        _lower_limits(int(sys.argv[1]))
        warnings.simplefilter("ignore")
        read_block(SAMPLE, 500, 192)  # imports and tables are loaded before the first request
        sys.addaudithook(_forbid)
    except Exception as error:  # sent to the parent, which raises it
        answers.write(json.dumps({"error": _words(error)}) + "\n")
        return
    answers.write('{"ready": true}\n')
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line)), allow_nan=False) + "\n")
        answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Crystals of a request's blocks as plain numbers, or a reason and detail."""
    # SIGALRM's default action ends this process even inside a C loop
    signal.setitimer(signal.ITIMER_REAL, request["wall_s"] + GRACE_S)
    try:
        limits = (request["max_sites"], request["max_operators"])
        crystals = [read_block(block, *limits) for block in request["blocks"]]
        return {"crystals": crystals}
    except RefusedError as refusal:
        return {"reason": refusal.reason, "detail": str(refusal)}
    except MemoryError:
        return {"reason": Reason.TOO_LARGE, "detail": "needs more memory than the limit"}
    except Exception as error:  # the parser's exceptions are of any type; each becomes data
        return {"reason": Reason.BAD_CIF, "detail": _words(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 160)}"


def _lower_limits(memory_bytes: int) -> None:
    """Limit memory, file size and core dumps of this process."""
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: parsing needs no network, no process and no file except to read."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if writes or event.startswith(FORBIDDEN):
        raise PermissionError(f"reading a CIF tried {event}")


if __name__ == "__main__":
    main()
