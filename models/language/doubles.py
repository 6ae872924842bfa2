"""Stand-ins for language models: one follows a script, one plays back a recording.

The script is for tests. A recording also replays or demonstrates a campaign on a machine without
a model server.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hullward.models.errors import InputError
from hullward.models.language.protocol import (
    MOST_TOKENS,
    Answer,
    Completion,
    CompletionError,
    FinishReason,
    Request,
)

ScriptLine = str | Sequence[str] | BaseException  # a text, n texts, or an error


class ScriptedModel:
    """Answers from a queue; `history` holds the requests.

    A CompletionError in the script is returned for its request; any other exception is raised, as
    when a process is killed.

    >>> model = ScriptedModel(["two"])
    >>> model.complete([Request(request_id="q", prompt="1 + 1 =")])[0][0].text
    'two'
    >>> [request.prompt for request in model.history]
    ['1 + 1 =']
    """

    def __init__(self, script: Iterable[ScriptLine], name: str = "scripted") -> None:
        self.name = name
        self.history: list[Request] = []
        self._script = deque(script)

    @property
    def remaining(self) -> int:
        return len(self._script)

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One line of the script a request; raises IndexError after the last."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Answer:
        self.history.append(request)
        if not self._script:
            raise IndexError(f"the script has no line for request {len(self.history)}")
        line = self._script.popleft()
        if isinstance(line, CompletionError):
            return line
        if isinstance(line, BaseException):
            raise line
        texts = (line,) if isinstance(line, str) else tuple(line)
        if len(texts) != request.sampling.n:
            raise ValueError(f"{request.sampling.n} completions wanted, {len(texts)} in the script")
        return tuple(Completion(text=t, model=self.name, finish_reason="stop") for t in texts)


class _RecordedLine(BaseModel):
    """One line of a recording."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    finish_reason: FinishReason = "unknown"
    prompt_tokens: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    completion_tokens: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    model: str | None = None
    request_id: str | None = None
    prompt: str | None = None


class RecordedModel:
    """Plays back completions recorded earlier, one JSON object a line.

    A line holds `text` and, where known, `finish_reason`, `prompt_tokens`, `completion_tokens`
    and `model`. With a `request_id` it answers that request, with a `prompt` the requests with
    exactly that prompt, with neither any other request; completions of one kind are used in the
    order of the file. The same request asked twice gets the same answer.

    served: the requests answered by earlier processes, in order. A resumed campaign passes what
    its journal holds, and the recording goes on where it stopped.

    Raises InputError, naming file and line, for a file that is no recording.
    """

    def __init__(self, path: Path, served: Sequence[Request] = ()) -> None:
        try:
            content = path.read_bytes()
            lines = content.decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the recording {path} cannot be read: {error}") from error
        self.name = f"recorded:{path.name}@{hashlib.sha256(content).hexdigest()[:12]}"
        self._path = path
        self._tape: dict[tuple[str, str], deque[Completion]] = {}
        self._answers: dict[str, Answer] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._record(line, f"{path}, line {number}")
        self.complete(served)

    @property
    def remaining(self) -> int:
        """Number of completions not used yet."""
        return sum(len(tape) for tape in self._tape.values())

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """The recorded completions; a CompletionError where the recording is exhausted."""
        for request in requests:
            if request.request_id not in self._answers:
                self._answers[request.request_id] = self._next(request)
        return [self._answers[request.request_id] for request in requests]

    def _record(self, line: str, where: str) -> None:
        try:
            entry = _RecordedLine.model_validate_json(line)
        except ValidationError as error:
            raise InputError(
                f"{where}: not a recorded completion: {' '.join(str(error).split())[:300]}"
            ) from error
        key = (
            ("request_id", entry.request_id) if entry.request_id else ("prompt", entry.prompt or "")
        )
        fields = entry.model_dump(exclude={"request_id", "prompt", "model"})
        completion = Completion(model=entry.model or self.name, **fields)
        self._tape.setdefault(key, deque()).append(completion)

    def _next(self, request: Request) -> Answer:
        """Take the completions recorded for this id, else this prompt, else for any request."""
        keys = (("request_id", request.request_id), ("prompt", request.prompt), ("prompt", ""))
        tape = next((self._tape[key] for key in keys if key in self._tape), deque[Completion]())
        n = request.sampling.n
        if len(tape) < n:
            left = f"request {request.request_id} needs {n} completions, {len(tape)} are left"
            why = f"the recording {self._path} is exhausted: {left}"
            return CompletionError(why, retry=False, kind="exhausted")
        return tuple(tape.popleft() for _ in range(n))
