"""A connection to an OpenAI-compatible server: what is sent, and a name for every failure.

The official client carries the bytes; its retries are off. Between two tries the server must be
identified again and the breaker asked, a timeout is not tried again, and waits keep to the limits
of `RetryPolicy`: the client's own loop allows none of this. Its reading of answers is not used
either, since an answer is stored as it came before it is read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hullward.models.language import CompletionError, Fault, PromptForm
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.wire import Call, RawResponse, Served, one_line

if TYPE_CHECKING:
    from httpx2 import Response


NO_KEY = "none"  # the client insists on one; local servers ignore it
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# How vLLM, OpenAI, llama.cpp and Ollama refuse a request that is too long
_TOO_LONG = ("context length", "maximum context", "context window", "context size", "max_model_len")


class ServerFaultError(CompletionError):
    """An exchange that gave no answer with status 200.

    again: whether another try soon may succeed; `retry` is true also where only a later one may.
    """

    def __init__(
        self, kind: Fault, message: str, *, again: bool = False, retry_after_s: float | None = None
    ) -> None:
        # whether the server itself may be broken, rather than this request be wrong
        self.of_the_server = kind in ("unreachable", "timeout", "server")
        self.again = again
        self.retry_after_s = retry_after_s
        later = again or self.of_the_server or kind == "outage"
        super().__init__(message, retry=later, kind=kind)


class Connection:
    """A client on one event loop; close it with `aclose`.

    record: called with every answer, whatever its status, before it is read.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        form: PromptForm,
        policy: RetryPolicy,
        record: Callable[[RawResponse], None] | None,
    ) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self.url = url.rstrip("/")
        self.form = form
        self._policy = policy
        self._record = record
        timeout = Timeout(
            connect=policy.connect_s, read=policy.read_s, write=policy.read_s, pool=policy.total_s
        )
        http_client = DefaultAsyncHttpxClient(
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,  # no proxy to this machine
            follow_redirects=False,  # the key and the prompts go to this address only
            timeout=timeout,
        )
        self._client = AsyncOpenAI(
            base_url=self.url,
            api_key=api_key or NO_KEY,
            max_retries=0,
            timeout=timeout,
            http_client=http_client,
        )
        self._client.organization = self._client.project = None  # read from the environment

    async def aclose(self) -> None:
        await self._client.close()

    async def send(
        self, call: Call, request_id: str, exchange: int, *, record: bool = True
    ) -> RawResponse:
        """One exchange. Raises ServerFaultError for every answer but a success, and for none."""
        asked = {**call.arguments, **call.extra}
        headers = {"X-Request-Id": request_id} if request_id.isascii() else {}
        response = await self._exchange(f"/{call.path}", asked, self._policy.total_s, headers)
        raw = RawResponse(
            request_id=request_id,
            exchange=exchange,
            path=call.path,
            model=str(call.arguments["model"]),
            asked=json.dumps(asked, sort_keys=True),
            status=response.status_code,
            body=response.content,
        )
        if record and self._record is not None:
            self._record(raw)
        self._require_success(response)
        return raw

    async def probe(self, served: Served) -> None:
        """Ask for one token: an engine may be dead behind a server that answers all else.

        Raises ServerFaultError.
        """
        asked = {"model": served.model, "max_tokens": 1, "temperature": 0}
        if self.form == "server" and not served.is_vllm:  # it may offer nothing else
            messages = [{"role": "user", "content": "1"}]
            await self._fetch("/chat/completions", {**asked, "messages": messages})
        else:
            await self._fetch("/completions", {**asked, "prompt": "1"})

    async def models(self) -> list[Served]:
        """The models that the server lists. Raises ServerFaultError."""
        body = await self._fetch("/models")
        try:
            rows = json.loads(body.decode())["data"]
            lengths = {row["id"]: row.get("max_model_len") for row in rows}
            return [
                Served(
                    model=str(row["id"]),
                    root=row.get("root"),
                    parent=row.get("parent"),
                    # an adapter has none of its own, but that of its base
                    max_model_len=lengths[row["id"]] or lengths.get(row.get("parent")),
                    is_vllm=row.get("owned_by") == "vllm",
                )
                for row in rows
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            text = one_line(body.decode(errors="backslashreplace"), 80)
            raise ServerFaultError(
                "refused", f"{self.url}/models answers no list of models but: {text}"
            ) from None

    async def tokenize(self, asked: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt or messages as vLLM counts them; None from a server that cannot."""
        try:
            body = await self._fetch(f"{self.url.removesuffix('/v1')}/tokenize", asked)
            count = json.loads(body.decode())["count"]
        except ServerFaultError as fault:
            if fault.kind == "refused":
                return None
            raise
        except (ValueError, KeyError, TypeError):
            return None
        return count if isinstance(count, int) else None

    async def _fetch(self, path: str, asked: Mapping[str, Any] | None = None) -> bytes:
        """The body of a small answer, which must come soon. Raises ServerFaultError."""
        response = await self._exchange(path, asked, self._policy.probe_s)
        self._require_success(response)
        return response.content

    async def _exchange(
        self,
        path: str,
        asked: Mapping[str, Any] | None,
        limit_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """An answer of any status. Raises ServerFaultError where no whole answer comes in time."""
        import openai
        from httpx2 import Response

        try:
            async with asyncio.timeout(limit_s):
                if asked is None:
                    return await self._client.get(path, cast_to=Response)
                return await self._client.post(
                    path, cast_to=Response, body=dict(asked), options={"headers": headers or {}}
                )
        except openai.APIStatusError as error:
            return error.response
        except TimeoutError:
            message = f"{self.url} did not finish within {limit_s:g} s"
            raise ServerFaultError("timeout", message) from None
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ in ("ConnectTimeout", "PoolTimeout"):
                message = f"{self.url} does not take a connection"
                raise ServerFaultError("unreachable", message, again=True) from None
            message = f"{self.url} sent nothing for {self._policy.read_s:g} s"
            raise ServerFaultError("timeout", message) from None
        except openai.APIConnectionError as error:
            why = one_line(str(error.__cause__ or error)) or type(error.__cause__).__name__
            message = f"no answer from {self.url}: {why}"
            raise ServerFaultError("unreachable", message, again=True) from None
        except openai.OpenAIError as error:
            raise ServerFaultError("protocol", one_line(str(error))) from None

    def _require_success(self, response: Response) -> None:
        """Raise the ServerFaultError that names an answer of another status than 2xx."""
        status = response.status_code
        if 200 <= status < 300:
            return
        reason = one_line(_message_of(response.content))
        message = f"{self.url} answers {status}: {reason or 'nothing'}"
        if status in (408, 429, 503):
            wait_s = _retry_after_s(response.headers.get("Retry-After", ""))
            raise ServerFaultError("busy", message, again=True, retry_after_s=wait_s)
        if status >= 500:
            raise ServerFaultError("server", message, again=True)
        if any(words in reason.lower() for words in _TOO_LONG):
            raise ServerFaultError("context", message)
        if status in (401, 403):
            message += "; set its key: HULLWARD_CHAT_API_KEY or HULLWARD_CRYSTAL_API_KEY"
        elif status == 404:
            message += "; check the address (it ends with /v1) and the model's name"
        elif 300 <= status < 400:
            where = one_line(response.headers.get("Location", "another address"))
            message += f"; it redirects to {where}: redirects are not followed, give that address"
        raise ServerFaultError("refused", message)


def _message_of(body: bytes) -> str:
    """The message in an error body, in whichever of the usual shapes."""
    text = body.decode(errors="backslashreplace")
    try:
        found = json.loads(text)
    except ValueError:
        return text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return found if isinstance(found, str) else json.dumps(found)


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
