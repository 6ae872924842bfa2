"""How many tokens a request has, counted by the server before it is sent."""

from __future__ import annotations

from collections.abc import Hashable

from hullward.models.language import Request
from hullward.models.serving.connection import Connection
from hullward.models.serving.faults import ServerFaultError
from hullward.models.serving.wire import Served, prompt_of

REMEMBERED = 4096  # prompts whose tokens are not counted again


class TokenCounts:
    """Asks vLLM, which knows its own tokenizer and template; other servers give no counts."""

    def __init__(self) -> None:
        self._server_counts = True  # until it fails to
        self._known: dict[Hashable, int] = {}

    async def require_room(self, connection: Connection, request: Request, served: Served) -> None:
        """Raise ServerFaultError for what is longer than the context. Unknown: let it pass."""
        limit = served.max_model_len
        tokens = None if limit is None else await self._count(connection, request, served)
        if limit is None or tokens is None or tokens + request.sampling.max_tokens <= limit:
            return
        message = (
            f"the prompt has {tokens} tokens, its answer may have {request.sampling.max_tokens}: "
            f"more than the {limit} of {served.model}"
        )
        raise ServerFaultError("context", message)

    async def _count(self, connection: Connection, request: Request, served: Served) -> int | None:
        prompt = prompt_of(request, connection.form)
        key: Hashable = prompt if isinstance(prompt, str) else request.messages
        if key not in self._known and served.is_vllm and self._server_counts:
            name = "prompt" if isinstance(prompt, str) else "messages"
            found = await connection.tokenize({"model": served.model, name: prompt})
            self._server_counts = found is not None
            if found is not None:
                self._known[key] = found
                if len(self._known) > REMEMBERED:
                    self._known.pop(next(iter(self._known)))
        return self._known.get(key)
