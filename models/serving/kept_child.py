"""Run a command for as long as the parent lives: `python kept_child.py COMMAND…`.

The parent holds the other end of stdin, which the system closes when it ends, however that
happens; then this process ends its whole process group. It imports nothing of the project.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

POLL_S = 0.2
GRACE_S = 5.0  # between SIGTERM and SIGKILL


def main(command: list[str]) -> int:
    """The exit status of the command."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # meant for the command, which ends us with it
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=_obey_sigterm, restore_signals=True
    )
    while (status := child.poll()) is None:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable and not os.read(0, 1):
            end_group(child)
    if status < 0:  # ended by a signal: end likewise
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the process group, and this process with it."""
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _obey_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
