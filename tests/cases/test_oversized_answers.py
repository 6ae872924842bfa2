"""Answers that are too long, packed, endless or slow: bounded in time, memory and on disk.

All cases run in one process of their own, whose memory is limited: `python FILE` prints one line of
JSON a case.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from hullward.models.language import CompletionError, Message, Request, Sampling
from hullward.models.serving import RawResponse, RetryPolicy, ServedModel
from hullward.models.serving.server_double import ServerDouble, Trouble

HASTE = RetryPolicy(
    connect_s=10, read_s=1, total_s=1, probe_s=1, tries=1, backoff_s=0.01, rest_s=0.05,
    outage_s=0.5, longest_wait_s=0.5, breaker_failures=99,
)  # fmt: skip
LONGEST_S = 12  # for a case; each may ask twice, and other tests run at the same time
MOST_GROWTH_MB = 300  # of the memory of the whole process, its server included
MOST_STORED = 2**16 + 100
AT_ONCE = 4  # requests
PART = b" " * 2**16
ANSWER = json.dumps({"choices": [{"index": 0, "message": {"content": "x"}}]}).encode()

Raw = Callable[[], Iterable[bytes]]


def head(status: int = 200, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def endless(part: bytes, *before: bytes) -> Iterator[bytes]:
    yield from before
    yield from repeat(part)


def body(content: bytes, status: int = 200, *fields: str) -> Raw:
    return lambda: [head(status, f"Content-Length: {len(content)}", *fields), content]


def packed_endless(bits: int) -> Iterator[bytes]:
    """Spaces, packed a thousand to one as gzip (31) or deflate (15), without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    first, block = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in "12")
    return endless(block, first)


@cache
def packed_many_times(times: int) -> bytes:
    content = b" " * 2**25
    for _ in range(times):
        content = gzip.compress(content, 9)
    return content


def chunked(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


def slowly(parts: Iterable[bytes], wait_s: float = 0.05) -> Iterator[bytes]:
    for part in parts:
        yield part
        time.sleep(wait_s)


GZIP = "Content-Encoding: gzip"
CHUNKED = "Transfer-Encoding: chunked"
DEEP = b"[" * 2_000_000
OK = b"HTTP/1.1 200 X\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# what a server sends, and how the request that meets it is counted; None: it is answered
SENT: dict[str, tuple[Raw, str | None]] = {
    "a body without an end": (lambda: endless(PART, head()), "protocol"),
    "ten GB": (lambda: endless(PART, head(200, "Content-Length: 10000000000")), "protocol"),
    "chunks without an end": (lambda: endless(chunked(PART), head(200, CHUNKED)), "protocol"),
    "tiny chunks": (lambda: endless(chunked(b" ") * 500, head(200, CHUNKED)), "timeout"),
    "an endless chunk": (lambda: endless(PART, head(200, CHUNKED), b"ffffffffff\r\n"), "protocol"),
    "an endless size of a chunk": (lambda: endless(b"f" * 4096, head(200, CHUNKED)), "unreachable"),
    "gzip without an end": (lambda: chain([head(200, GZIP)], packed_endless(31)), "protocol"),
    "deflate without an end": (
        lambda: chain([head(200, "Content-Encoding: deflate")], packed_endless(15)),
        "protocol",
    ),
    "gzip in gzip in gzip": (
        lambda: [head(200, "Content-Encoding: gzip, gzip, gzip"), packed_many_times(3)],
        "protocol",
    ),
    "gzip a hundred times": (
        body(b"x", 200, "Content-Encoding: " + ", ".join(["gzip"] * 100)),
        "protocol",
    ),
    "gzip that is none": (body(b"plain", 200, GZIP), "protocol"),
    "brotli, not asked for": (body(b"\x0b", 200, "Content-Encoding: br"), "protocol"),
    "zstd, not asked for": (body(b"\x28\xb5\x2f\xfd", 200, "Content-Encoding: zstd"), "protocol"),
    "500 without an end": (lambda: endless(PART, head(500)), "server"),
    "400 without an end": (lambda: endless(b"no " * 2**14, head(400)), "refused"),
    "503 packed": (lambda: chain([head(503, GZIP)], packed_endless(31)), "busy"),
    "307 without an end": (lambda: endless(PART, head(307, "Location: /x")), "refused"),
    "an error nested too deeply": (body(b'{"error": ' + DEEP, 400), "refused"),
    "a server's error nested too deeply": (body(b'{"error": ' + DEEP, 500), "server"),
    "an answer nested too deeply": (body(b'{"choices": ' + DEEP), "protocol"),
    "objects nested too deeply": (body(b'{"a":' * 1_000_000), "protocol"),
    "an answer of empty lists": (body(b'{"choices": [' + b"[]," * 50_000 + b"1]}"), "protocol"),
    "a number of 4 million digits": (body(b'{"choices": ' + b"9" * 4_000_000 + b"}"), "protocol"),
    "a text of 4 million characters": (
        body(ANSWER.replace(b'"x"', b'"%s"' % (b"x y " * 1_000_000))),
        None,
    ),
    "50,000 choices": (
        body(b'{"choices": [' + b",".join([b'{"text":"x"}'] * 50_000) + b"]}"),
        None,
    ),
    "headers without an end": (lambda: endless(b"X: " + b"b" * 4096 + b"\r\n", OK), "unreachable"),
    "a header without an end": (lambda: endless(b"b" * 4096, OK + b"X: "), "unreachable"),
    "a million small headers": (lambda: endless(b"a:b\r\n" * 1000, OK), "unreachable"),
    "a status without an end": (lambda: endless(b"b" * 4096, b"HTTP/1.1 200 "), "unreachable"),
    "100 Continue without an end": (lambda: endless(CONTINUE * 50), "timeout"),
    "a trickle": (lambda: slowly(endless(b" ", head())), "timeout"),
    "a trickle of headers": (lambda: slowly(endless(b"X: b\r\n", OK)), "timeout"),
    "a trickle of gzip": (lambda: slowly(chain([head(200, GZIP)], packed_endless(31))), "protocol"),
    "no HTTP": (lambda: [b"SSH-2.0-OpenSSH_9.6\r\n"], "unreachable"),
    "a later HTTP": (lambda: [b"HTTP/9.9 200 OK\r\n\r\n"], "protocol"),
    "two lengths": (
        lambda: [head(200, "Content-Length: 1", "Content-Length: 2"), b"xx"],
        "unreachable",
    ),
    "a negative length": (lambda: [head(200, "Content-Length: -1"), b"x"], "unreachable"),
    "less than its length": (lambda: [head(200, "Content-Length: 100"), b"x"], "unreachable"),
    "a header that is not ASCII": (body(ANSWER, 200, "Server: Caf\xe9"), None),
}


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str) -> dict[str, Any]:
    """Ask a server that sends this, in a batch: outcomes, seconds, memory and what was stored."""
    raw, _ = SENT[name]
    kept: list[RawResponse] = []
    requests = [
        Request(
            request_id=f"q-{number}",
            messages=(Message(role="user", content="?"),),
            sampling=Sampling(max_tokens=8),
        )
        for number in range(AT_ONCE)
    ]
    before_mb, started = memory_mb(), time.monotonic()
    with ServerDouble("chat", owned_by="library") as server:
        server.troubles += [Trouble("raw", raw=raw)] * (2 * AT_ONCE)
        model = ServedModel(server.url, "chat", policy=HASTE, on_response=kept.append)
        answers = model.complete(requests)
        passed = time.monotonic() - started
        server.troubles.clear()
        [after] = model.complete(requests[:1])
    failures = [one for one in answers if isinstance(one, CompletionError)]
    return {
        "name": name,
        "kinds": sorted({str(one.kind) for one in failures}),
        "failed": len(failures),
        "longest_message": max((len(str(one)) for one in failures), default=0),
        "seconds": passed,
        "grown_mb": memory_mb() - before_mb,
        "most_stored": max((len(one.body) for one in kept if one.status != 200), default=0),
        "usable_after": not isinstance(after, CompletionError),
    }


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    command = [sys.executable, __file__]
    # a heap for each thread would count against the limit of addresses
    settings = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=110, check=False, env=settings
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {(row := json.loads(line))["name"]: row for line in done.stdout.splitlines()}


@pytest.mark.parametrize("name", SENT)
def test_what_is_too_much_is_bounded_and_named(
    measured: dict[str, dict[str, Any]], name: str
) -> None:
    kind, row = SENT[name][1], measured[name]
    assert row["kinds"] == ([] if kind is None else [kind])
    assert row["failed"] == (0 if kind is None else AT_ONCE)
    assert row["longest_message"] < 1000
    assert row["seconds"] < LONGEST_S
    assert row["grown_mb"] < MOST_GROWTH_MB
    assert row["most_stored"] <= MOST_STORED
    assert row["usable_after"]


if __name__ == "__main__":
    import openai  # noqa: F401  # before memory is measured

    packed_many_times(3)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in sys.argv[1:] or SENT:
        print(json.dumps(measure(case)), flush=True)
