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
from typing import TYPE_CHECKING, Any

from hullward.models.language import PromptForm, parse_json
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.faults import (
    ServerFaultError,
    fault_of_address,
    fault_of_answer,
    fault_of_connection,
)
from hullward.models.serving.wire import Call, RawResponse, Served, one_line

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import AsyncOpenAI

NO_KEY = "none"  # the client insists on one; local servers ignore it


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
        self.url = url.rstrip("/")
        self.form = form
        self._key = api_key or NO_KEY
        self._policy = policy
        self._record = record
        self._opened: AsyncOpenAI | None = None

    @property
    def _client(self) -> AsyncOpenAI:
        """Opened with the first request; raises ServerFaultError where that cannot be."""
        if self._opened is None:
            from openai import AsyncOpenAI, Timeout

            from hullward.models.serving.bodies import open_client

            if not (self._key.isascii() and self._key.isprintable()):
                message = f"the key for {self.url} holds a character that is no plain ASCII"
                raise ServerFaultError("refused", f"{message}; copy it again")
            policy = self._policy
            timeout = Timeout(
                connect=policy.connect_s,
                read=policy.read_s,
                write=policy.read_s,
                pool=policy.total_s,
            )
            self._opened = AsyncOpenAI(
                base_url=self.url,
                api_key=self._key,
                max_retries=0,
                timeout=timeout,
                http_client=open_client(self.url, timeout, self._key),
            )
            self._opened.organization = self._opened.project = None  # read from the environment
        return self._opened

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def send(
        self,
        call: Call,
        request_id: str,
        exchange: int,
        *,
        record: bool = True,
        limit_s: float | None = None,
    ) -> RawResponse:
        """One exchange. Raises ServerFaultError for every answer but a success, and for none."""
        asked = {**call.arguments, **call.extra}
        headers = {"X-Request-Id": request_id} if request_id.isascii() else {}
        limit_s = self._policy.total_s if limit_s is None else limit_s
        response = await self._exchange(f"/{call.path}", asked, limit_s, headers)
        raw = RawResponse(
            request_id=request_id,
            exchange=exchange,
            path=call.path,
            model=str(call.arguments["model"]),
            asked=json.dumps(asked, sort_keys=True),
            status=response.status_code,
            body=response.content,
            left_out=call.left_out,
        )
        if record and self._record is not None:
            self._record(raw)
        self._require_success(response)
        return raw

    async def models(self) -> list[Served]:
        """The models that the server lists. Raises ServerFaultError."""
        body = await self._fetch("/models")
        try:
            found = parse_json(body.decode("utf-8-sig"))
            rows = (found["data"] or []) if isinstance(found, dict) else found
            lengths = {row["id"]: row.get("max_model_len") for row in rows}
            return [_served(row, lengths) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError):
            text = one_line(body[:200].decode(errors="backslashreplace"), 80)
            raise ServerFaultError(
                "refused", f"{self.url}/models answers no list of models but: {text}", status=200
            ) from None

    async def tokenize(self, asked: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt or messages as vLLM counts them; None from a server that cannot."""
        try:
            body = await self._fetch(f"{self.url.removesuffix('/v1')}/tokenize", asked)
            count = parse_json(body)["count"]
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
        from httpx2 import InvalidURL, Response

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
            raise fault_of_connection(self.url, error) from None
        except openai.OpenAIError as error:
            raise ServerFaultError("protocol", one_line(str(error))) from None
        except (ValueError, OverflowError, OSError, InvalidURL, ExceptionGroup) as error:
            # addresses of servers and proxies that are none, such as a port of 99999
            raise fault_of_address(self.url, error) from None

    def _require_success(self, response: Response) -> None:
        """Raise the ServerFaultError of an answer that reports one, or that was cut off."""
        from hullward.models.serving.bodies import CUT, MOST_BYTES

        fault = fault_of_answer(self.url, response.status_code, response.content, response.headers)
        if fault is not None:
            raise fault
        if response.extensions[CUT]:
            message = f"{self.url} sends more than {MOST_BYTES:,} bytes; no more were read"
            raise ServerFaultError("protocol", message)


def _served(row: Mapping[str, Any], lengths: Mapping[str, Any]) -> Served:
    """A model as one row of a list of models describes it."""
    # an adapter has no length of its own, but that of its base
    length = lengths[row["id"]] or lengths.get(row.get("parent") or "")
    whole = isinstance(length, int) and not isinstance(length, bool) and length > 0
    return Served(
        model=str(row["id"]),
        root=_text(row.get("root")),
        parent=_text(row.get("parent")),
        max_model_len=length if whole else None,
        is_vllm=row.get("owned_by") == "vllm",
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
