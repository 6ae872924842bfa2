"""How many tokens a request has, counted before it is sent."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from hullward.models.language import Request
from hullward.models.serving.connection import Connection, ServerFaultError
from hullward.models.serving.wire import Served, prompt_of

REMEMBERED = 4096  # prompts whose tokens are not counted again


class TokenCounts:
    """Asks the server, which knows its own tokenizer and template; else a function of the caller.

    limit: tokens of prompt and answer, for servers that do not tell.
    """

    def __init__(self, limit: int | None, count_text: Callable[[str], int] | None) -> None:
        self._limit = limit
        self._count_text = count_text
        self._server_counts = True  # until it says otherwise
        self._known: OrderedDict[Any, int] = OrderedDict()
        self._guard = threading.Lock()

    async def require_room(self, line: Connection, request: Request, served: Served) -> None:
        """Raise ServerFaultError for what is longer than the context. Unknown: let it pass."""
        limit = served.max_model_len or self._limit
        tokens = None if limit is None else await self._count(line, request, served)
        if limit is None or tokens is None or tokens + request.sampling.max_tokens <= limit:
            return
        message = (
            f"the prompt has {tokens} tokens, its answer may have {request.sampling.max_tokens}: "
            f"more than the {limit} of {served.model}"
        )
        raise ServerFaultError("context", message, retry=False)

    async def _count(self, line: Connection, request: Request, served: Served) -> int | None:
        said = prompt_of(request, line.form)
        key = said if isinstance(said, str) else request.messages
        with self._guard:
            if key in self._known:
                return self._known[key]
        found = None
        if served.is_vllm and self._server_counts:
            what = {"prompt": said} if isinstance(said, str) else {"messages": said}
            found = await line.tokenize({"model": served.model, **what})
            self._server_counts = found is not None
        if found is None and self._count_text is not None:
            whole = said if isinstance(said, str) else "\n".join(m["content"] for m in said)
            found = self._count_text(whole)
        if found is not None:
            with self._guard:
                self._known[key] = found
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return found
