"""One line to an OpenAI-compatible server: what is sent, and every way in which it fails, named.

The official client carries the bytes. Its own retries are off and its own reading of answers is
not used: an answer is first stored as it came.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hullward.models.language import CompletionError, Fault, PromptForm
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.wire import Call, RawResponse, Served, one_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI


NO_KEY = "none"  # the client insists on one; local servers ignore it
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# What a request too long is told by vLLM, OpenAI, llama.cpp and Ollama
_TOO_LONG = ("context length", "maximum context", "context window", "context size", "max_model_len")


class ServerFaultError(Exception):
    """An exchange that gave no answer with status 200."""

    def __init__(
        self, kind: Fault, message: str, *, retry: bool, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind: Fault = kind
        self.retry = retry  # worth another try soon
        self.retry_after_s = retry_after_s

    @property
    def of_the_server(self) -> bool:
        """Whether the server itself is in doubt, rather than this request."""
        return self.kind in ("unreachable", "timeout", "server")

    def as_error(self) -> CompletionError:
        later = self.retry or self.of_the_server or self.kind == "outage"
        return CompletionError(str(self), retry=later, kind=self.kind)


class Connection:
    """A client on one event loop, in an `async with` block.

    record: given every answer, whatever its status, before anyone reads it.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        form: PromptForm,
        patience: RetryPolicy,
        record: Callable[[RawResponse], None] | None,
    ) -> None:
        self.url = url.rstrip("/")
        self.form = form
        self._key = api_key or NO_KEY
        self._patience = patience
        self._record = record
        self._open: AsyncOpenAI | None = None

    async def __aenter__(self) -> Connection:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        p = self._patience
        local = urlsplit(self.url).hostname in LOOPBACK
        self._open = AsyncOpenAI(
            base_url=self.url,
            api_key=self._key,
            max_retries=0,
            timeout=_timeout(p),
            http_client=DefaultAsyncHttpxClient(trust_env=not local, timeout=_timeout(p)),
        )
        self._open.organization = self._open.project = None  # it read them from the environment
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    async def send(
        self, call: Call, request_id: str, exchange: int, *, record: bool = True
    ) -> RawResponse:
        """One exchange. Raises ServerFaultError for every answer but 200, and for none."""
        asked = {**call.arguments, **call.extra}
        headers = {"X-Request-Id": request_id} if request_id.isascii() else {}

        def keep(status: int, body: bytes) -> RawResponse:
            raw = RawResponse(
                request_id=request_id,
                exchange=exchange,
                path=call.path,
                model=str(call.arguments["model"]),
                asked=json.dumps(asked, sort_keys=True),
                status=status,
                body=body,
            )
            if record and self._record is not None:
                self._record(raw)
            return raw

        client = self._client
        create = (
            client.completions if call.path == "completions" else client.chat.completions
        ).with_raw_response.create
        status, body = await self._fetch(
            lambda: create(**call.arguments, extra_body=dict(call.extra), extra_headers=headers),
            keep,
        )
        return keep(status, body)

    async def probe(self, served: Served) -> None:
        """One token, soon: an engine may be dead behind a server that answers everything else.

        Raises ServerFaultError.
        """
        client, limit = self._client, self._patience.probe_s
        if self.form == "server" and not served.is_vllm:  # it may offer nothing else
            said = [{"role": "user", "content": "1"}]
            create: Any = client.chat.completions.with_raw_response.create
            asked: dict[str, Any] = {"messages": said}
        else:
            create, asked = client.completions.with_raw_response.create, {"prompt": "1"}
        await self._fetch(
            lambda: create(model=served.model, max_tokens=1, temperature=0, **asked), total_s=limit
        )

    async def models(self) -> list[Served]:
        """What the server says it serves. Raises ServerFaultError."""
        _, body = await self._fetch(
            self._client.models.with_raw_response.list, total_s=self._patience.probe_s
        )
        try:
            rows = json.loads(body.decode())["data"]
            lengths = {row["id"]: row.get("max_model_len") for row in rows}
            return [
                Served(
                    model=str(row["id"]),
                    root=row.get("root"),
                    parent=row.get("parent"),
                    # an adapter's is not told; it is its base's
                    max_model_len=lengths[row["id"]] or lengths.get(row.get("parent")),
                    is_vllm=row.get("owned_by") == "vllm",
                )
                for row in rows
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            said = one_line(body.decode(errors="backslashreplace"), 80)
            raise ServerFaultError(
                "refused", f"{self.url}/models answers no list of models but: {said}", retry=False
            ) from None

    async def tokenize(self, asked: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt or messages as vLLM counts them; None from a server that cannot."""
        from httpx2 import Response

        address = f"{self.url.removesuffix('/v1')}/tokenize"
        try:
            _, body = await self._fetch(
                lambda: self._client.post(address, cast_to=Response, body=dict(asked)),
                total_s=self._patience.probe_s,
            )
            count = json.loads(body.decode())["count"]
        except ServerFaultError as fault:
            if fault.kind == "refused":
                return None
            raise
        except (ValueError, KeyError, TypeError):
            return None
        return count if isinstance(count, int) else None

    @property
    def _client(self) -> AsyncOpenAI:
        if self._open is None:
            raise RuntimeError("use the line in an `async with` block")
        return self._open

    async def _fetch(
        self,
        ask: Callable[[], Any],
        keep: Callable[[int, bytes], Any] | None = None,
        total_s: float | None = None,
    ) -> tuple[int, bytes]:
        import openai

        limit = total_s or self._patience.total_s
        try:
            async with asyncio.timeout(limit):
                got = await ask()
            response = getattr(got, "http_response", got)
            return response.status_code, response.content
        except TimeoutError:
            message = f"{self.url} did not finish within {limit:g} s"
            raise ServerFaultError("timeout", message, retry=False) from None
        except openai.APIStatusError as error:
            body = error.response.content
            if keep is not None:
                keep(error.status_code, body)
            raise self._status_fault(error.status_code, body, error.response.headers) from None
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ in ("ConnectTimeout", "PoolTimeout"):
                message = f"{self.url} does not take a connection"
                raise ServerFaultError("unreachable", message, retry=True) from None
            message = f"{self.url} said nothing for {self._patience.read_s:g} s"
            raise ServerFaultError("timeout", message, retry=False) from None
        except openai.APIConnectionError as error:
            why = one_line(str(error.__cause__ or error)) or type(error.__cause__).__name__
            message = f"no answer from {self.url}: {why}"
            raise ServerFaultError("unreachable", message, retry=True) from None
        except openai.OpenAIError as error:
            raise ServerFaultError("protocol", one_line(str(error)), retry=False) from None

    def _status_fault(
        self, status: int, body: bytes, headers: Mapping[str, str]
    ) -> ServerFaultError:
        said = one_line(_message_of(body))
        message = f"{self.url} answers {status}: {said or 'nothing'}"
        if status in (408, 429, 503):
            wait_s = _retry_after_s(headers.get("Retry-After", ""))
            return ServerFaultError("busy", message, retry=True, retry_after_s=wait_s)
        if status >= 500:
            return ServerFaultError("server", message, retry=True)
        if any(words in said.lower() for words in _TOO_LONG):
            return ServerFaultError("context", message, retry=False)
        if status in (401, 403):
            message += "; set its key: HULLWARD_CHAT_API_KEY or HULLWARD_CRYSTAL_API_KEY"
        elif status == 404:
            message += "; check the address (it ends with /v1) and the model's name"
        return ServerFaultError("refused", message, retry=False)


def _timeout(p: RetryPolicy) -> Any:
    from openai import Timeout

    return Timeout(connect=p.connect_s, read=p.read_s, write=p.read_s, pool=p.total_s)


def _message_of(body: bytes) -> str:
    """What an error body says, in whichever of the usual shapes."""
    text = body.decode(errors="backslashreplace")
    try:
        said = json.loads(text)
    except ValueError:
        return text
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    return said if isinstance(said, str) else json.dumps(said)


def _retry_after_s(text: str) -> float | None:
    """Seconds that a server asks to wait, given as a number or as a date."""
    text = text.strip()
    if text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
