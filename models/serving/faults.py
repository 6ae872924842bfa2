"""A name for everything that goes wrong between us and an OpenAI-compatible server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from hullward.models.language import CompletionError, Fault, parse_json
from hullward.models.serving.wire import one_line

# How vLLM, OpenAI, llama.cpp and Ollama refuse a request that is too long
_TOO_LONG = ("context length", "maximum context", "context window", "context size", "max_model_len")


class ServerFaultError(CompletionError):
    """An exchange that gave no answer with status 200.

    again: whether another try soon may succeed; `retry` is true also where only a later one may.
    status, body: of the answer, where one came.
    """

    def __init__(
        self,
        kind: Fault,
        message: str,
        *,
        again: bool = False,
        retry_after_s: float | None = None,
        status: int | None = None,
        body: bytes = b"",
    ) -> None:
        # whether the server itself may be broken, rather than this request be wrong
        self.of_the_server = kind in ("unreachable", "timeout", "server")
        self.again = again
        self.retry_after_s = retry_after_s
        self.status = status
        self.body = body
        later = again or self.of_the_server or kind == "outage"
        super().__init__(message, retry=later, kind=kind)


def fault_of_answer(
    url: str, status: int, body: bytes, headers: Mapping[str, str]
) -> ServerFaultError | None:
    """The fault that an answer reports by its status, or by an error in place of completions."""
    if 200 <= status < 300:
        reported = _reported_status(body)
        if reported is None:
            return None
        status = reported
    reason = message_of(body)
    message = f"{url} answers {status}: {one_line(reason) or 'nothing'}"
    if status in (408, 429, 503):
        wait_s = _retry_after_s(headers.get("Retry-After", ""))
        return ServerFaultError("busy", message, again=True, retry_after_s=wait_s, status=status)
    if status >= 500:
        return ServerFaultError("server", message, again=True, status=status, body=body)
    if any(words in reason.lower() for words in _TOO_LONG):
        return ServerFaultError("context", message, status=status)
    if status in (401, 403):
        message += "; set its key: HULLWARD_CHAT_API_KEY or HULLWARD_CRYSTAL_API_KEY"
    elif status == 404:
        message += "; check the address (it ends with /v1) and the model's name"
    elif 300 <= status < 400:
        where = one_line(headers.get("Location", "another address"))
        message += f"; it redirects to {where}: redirects are not followed, give that address"
    return ServerFaultError("refused", message, status=status, body=body)


def fault_of_connection(url: str, error: BaseException) -> ServerFaultError:
    """The fault behind an error of the client, where no whole answer came."""
    causes = list(_causes(error))
    why = one_line(next((text for one in causes[1:] if (text := str(one))), "") or str(error))
    why = why or type(causes[-1]).__name__
    message = f"no answer from {url}: {why}"
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        message += "; set SSL_CERT_FILE to the file of the authority that signed its certificate"
        return ServerFaultError("refused", message)
    if any(type(one).__name__ == "DecodingError" for one in causes):
        return ServerFaultError("protocol", f"the answer of {url} cannot be unpacked: {why}")
    return ServerFaultError("unreachable", message, again=True)


def fault_of_address(url: str, error: BaseException) -> ServerFaultError:
    """The fault of an address, of the server or of a proxy, that nothing can be sent to."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    why = one_line(f"{error}") or type(error).__name__
    message = f"{url} cannot be asked: {why}; check the address and the proxy"
    return ServerFaultError("refused", message)


def message_of(body: bytes) -> str:
    """The message in an error body, in whichever of the usual shapes."""
    text = body.decode(errors="backslashreplace")
    try:
        found = parse_json(text)
    except ValueError:
        return text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found if isinstance(found, str) else text


def _reported_status(body: bytes) -> int | None:
    """The status in an error that came with status 200, as routers of many servers send it."""
    if b'"error"' not in body:
        return None
    try:
        found = parse_json(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("choices"):
        return None
    error: Any = found.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _retry_after_s(text: str) -> float | None:
    """Seconds that a server asks to wait, given as a number or as a date."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it; a few, should they form a circle."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
