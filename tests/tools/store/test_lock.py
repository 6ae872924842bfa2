"""One writer a directory, named to the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import asdict

import pytest

from hullward.models.errors import LockedError
from hullward.tools.store.lock import NAME, Holder, Lock, holder

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


NAMED = {"pid": os.getpid(), "host": socket.gethostname(), "command": "run", "since": "2026"}


@pytest.mark.parametrize("host", [NAMED["host"], "elsewhere"])
def test_a_name_without_a_lock_is_that_of_a_dead_writer(tmp_path, host):
    (tmp_path / NAME).write_text(json.dumps(NAMED | {"host": host}))  # our id, used again
    assert holder(tmp_path) is None
    Lock(tmp_path, "next").close()


def test_a_process_that_got_the_id_of_the_dead_writer_is_not_taken_for_it(tmp_path):
    with closing(Lock(tmp_path, "now")) as lock:
        assert holder(tmp_path) == lock.holder
        stolen = asdict(lock.holder) | {"birth": "another boot 17"}
        (tmp_path / NAME).write_text(json.dumps(stolen))
        assert holder(tmp_path) is None


def test_the_lock_of_an_earlier_version_names_its_holder(tmp_path):
    with closing(Lock(tmp_path, "now")):
        (tmp_path / NAME).write_text(json.dumps(NAMED))
        assert holder(tmp_path) == Holder(**NAMED)
        with pytest.raises(LockedError, match=f"process {os.getpid()} on .*run, since 2026"):
            Lock(tmp_path, "next")


def test_looking_at_a_lock_keeps_nobody_from_it(tmp_path):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            holder(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(100):
            Lock(tmp_path, "writer").close()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()


UNREADABLE = ["", "garbage", "[]", "{}", '{"pid": "x"}', "[" * 4000, '{"pid": ' + "9" * 4000]
UNREADABLE += [json.dumps(NAMED | change) for change in (
    {"pid": "1"}, {"pid": True}, {"pid": -1}, {"pid": 2**40}, {"host": 1}, {"later": 1},
)]  # fmt: skip


@pytest.mark.parametrize("content", UNREADABLE, ids=range(len(UNREADABLE)))  # not by process id
def test_a_name_that_says_nothing_names_nobody(tmp_path, content):
    with closing(Lock(tmp_path, "now")):
        (tmp_path / NAME).write_text(content)
        assert holder(tmp_path) is None
        with pytest.raises(LockedError, match="name is not known"):
            Lock(tmp_path, "next")


@pytest.mark.parametrize("content", ["", "garbage", "[]", "{}", '{"pid": "x"}'])
def test_an_unreadable_name_in_the_lock_file_harms_nobody(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    assert holder(tmp_path) is None
    Lock(tmp_path, "test").close()
