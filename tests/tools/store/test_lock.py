"""One writer a directory, named to the others."""

import os
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from hullward.models.errors import LockedError
from hullward.tools.store.lock import NAME, Lock, holder

WRITER = """
import sys
from pathlib import Path
from hullward.models.errors import LockedError
from hullward.tools.store.lock import Lock
print("ready", flush=True)
sys.stdin.readline()
try:
    Lock(Path(sys.argv[1]), "test writer")
    print("writer", flush=True)
    sys.stdin.readline()
except LockedError as error:
    print("locked", error, flush=True)
    sys.exit(error.exit_code)
"""


def start(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_five_processes_at_once_exactly_one_writes(tmp_path):
    processes = [start(tmp_path) for _ in range(5)]
    for process in processes:
        tell(process)
    answers = [process.stdout.readline().split(maxsplit=1) for process in processes]
    assert sorted(answer[0] for answer in answers) == ["locked"] * 4 + ["writer"]
    winner = processes[[answer[0] for answer in answers].index("writer")]
    for process, answer in zip(processes, answers, strict=True):
        if process is not winner:
            assert f"process {winner.pid} on " in answer[1]
            assert "(test writer, since 20" in answer[1]
            assert process.communicate()[0] == ""
            assert process.returncode == 5
    winner.communicate("\n")


def test_a_killed_holder_leaves_no_lock_behind(tmp_path):
    process = start(tmp_path)
    tell(process)
    assert process.stdout.readline() == "writer\n"
    assert holder(tmp_path).pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert holder(tmp_path) is None
    with closing(Lock(tmp_path, "next")):
        assert holder(tmp_path).pid == os.getpid()
    assert holder(tmp_path) is None


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with closing(Lock(tmp_path, "first")), pytest.raises(LockedError, match="first"):
        Lock(tmp_path, "second")
    Lock(tmp_path, "third").close()


@pytest.mark.parametrize("content", ["", "garbage", "[]", "{}", '{"pid": "x"}'])
def test_an_unreadable_name_in_the_lock_file_harms_nobody(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    assert holder(tmp_path) is None
    Lock(tmp_path, "test").close()
