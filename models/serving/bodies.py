"""Answers of a server, read up to a limit, so that no server can fill the memory or the disk.

Imported where a connection is opened, since it imports the HTTP client.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx2

from hullward.models.serving.faults import ServerFaultError

MOST_BYTES = 4 * 2**20  # of an answer, unpacked; two hundred texts of 4,000 tokens have 3 MB
MOST_OF_AN_ERROR = 2**16
SECRET = 12  # characters; a shorter key is a word such as 'none' for servers that need no key
CUT = "cut"  # the extension of a response of which only the beginning was kept
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def open_client(url: str, timeout: httpx2.Timeout, key: str) -> httpx2.AsyncClient:
    """A client that follows no redirect and reads no more than these limits.

    key: blanked where a server repeats it, since answers are stored and shown.

    Raises ServerFaultError for proxies and certificates of the environment that it cannot use.
    """
    address = urlsplit(url)
    transport = None
    try:
        if address.hostname in LOOPBACK:  # no proxy to this machine
            verify = address.scheme.lower() != "http"  # without TLS there is nothing to verify
            transport = httpx2.AsyncHTTPTransport(verify=verify)
        return BoundedClient(
            key,
            transport=transport,
            timeout=timeout,
            follow_redirects=False,  # the key and the prompts go to this address only
        )
    except ImportError:
        remedy = "pip install socksio, set another proxy, or name the host in NO_PROXY"
        message = f"{url} is to be reached through a SOCKS proxy (ALL_PROXY): {remedy}"
        raise ServerFaultError("refused", message) from None
    except (ValueError, OSError, httpx2.InvalidURL) as error:  # ssl.SSLError is an OSError
        where = "the proxy (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, NO_PROXY)"
        if isinstance(error, OSError):
            where = "the certificates (SSL_CERT_FILE, SSL_CERT_DIR)"
        message = f"{where} of the environment cannot be used for {url}: {error}"
        raise ServerFaultError("refused", message) from None


class BoundedClient(httpx2.AsyncClient):
    """As its base, with whole responses that hold at most so many bytes, whatever was sent."""

    def __init__(self, key: str, **options: Any) -> None:
        super().__init__(**options)
        self._key = key.encode() if len(key) >= SECRET else b""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = await super().send(request, **{**options, "stream": True})
        try:
            _check_coding(request, response)
            limit = MOST_BYTES if response.is_success else MOST_OF_AN_ERROR
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > limit:
                    break
        finally:
            await response.aclose()  # with what was not read
        about_bytes = (b"content-encoding", b"content-length", b"transfer-encoding")
        raw = response.headers.raw  # bytes, since not every server keeps to ASCII
        headers = [(name, value) for name, value in raw if name.lower() not in about_bytes]
        body = b"".join(parts)
        if self._key:
            body = body.replace(self._key, b"[key]")
        if size > limit:
            body = body[:MOST_OF_AN_ERROR]
        return httpx2.Response(
            response.status_code,
            headers=headers,
            content=body,
            request=request,
            extensions={CUT: size > limit},
        )


def _check_coding(request: httpx2.Request, response: httpx2.Response) -> None:
    """Raise ServerFaultError for an answer that is packed in a way we cannot unpack."""
    known = {word.strip() for word in request.headers.get("Accept-Encoding", "").split(",")}
    sent = response.headers.get("Content-Encoding", "").lower().split(",")
    if unknown := {word.strip() for word in sent} - known - {"", "identity"}:
        message = f"the answer is packed as {', '.join(sorted(unknown))}, which was not asked for"
        raise ServerFaultError("protocol", message[:200])
