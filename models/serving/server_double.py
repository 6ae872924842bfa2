"""A server on this machine that answers like vLLM, without a model, for tests.

It answers the paths that our client uses: models, completions, chat completions, tokenize, health
and version. `troubles` is a queue of faults: each spoils one completion. `dress`, `listing` and
`refusal` make it one of the many servers that differ from vLLM. `down` stops it, `up` starts it on
the same port, with another model if one is given.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

POLL_S = 0.01  # until it notices that it is to stop
TRICKLE_S = 0.02  # between two bytes


class Trouble(NamedTuple):
    """How one completion is spoiled.

    kind 'status': an error of this status.  'stall': no byte ever comes.  'trickle': bytes come one
    by one and never end.  'drop': the connection is closed without an answer.  'cut': half of the
    answer.  'body': these bytes instead.  'text': this text, ended for this reason.  'raw': these
    bytes in place of status, headers and body; they may be endless.
    """

    kind: str
    status: int = 200
    retry_after: str | None = None
    location: str | None = None
    body: bytes = b""
    text: str = ""
    finish_reason: str = "stop"
    raw: Callable[[], Iterable[bytes]] = tuple


class ServerDouble:
    """The server, in a `with` block. `asked` holds (path, body) of each completion."""

    def __init__(
        self,
        model: str = "double",
        *,
        answer: Callable[[dict[str, Any]], str] = lambda asked: "one two three",
        max_model_len: int = 512,
        owned_by: str = "vllm",
        key: str | None = None,
    ) -> None:
        self.model = model
        self.root = f"/models/{model}"
        self.answer = answer
        self.max_model_len = max_model_len
        self.owned_by = owned_by
        self.key = key
        self.troubles: deque[Trouble] = deque()
        self.hanging = False  # the engine is dead: only completions get no answer
        self.honours_n = True
        self.dress: Callable[[dict[str, Any]], Any] = lambda body: body  # each answer
        self.listing: tuple[int, Any] | None = None  # status and body in place of its own list
        # status and body of the refusal of a request; None takes it
        self.refusal: Callable[[dict[str, Any]], tuple[int, Any] | None] = lambda asked: None
        self.likelihood: Callable[[str], float] = lambda prompt: -1.0  # of every token of a prompt
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.other: list[str] = []  # paths of all other requests
        self.most_at_once = 0
        self._at_once = 0
        self._port = 0
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> ServerDouble:
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.down()

    def up(self, model: str | None = None, root: str | None = None) -> None:
        """Listen, on the same port as before."""
        self.model, self.root = model or self.model, root or self.root
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double._get(self)

            def do_POST(self) -> None:
                double._post(self)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                del request, client_address  # of a client that gave up

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        assert self._server is not None
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def texts(self) -> list[Any]:
        """Prompts and messages received so far."""
        return [body.get("prompt", body.get("messages")) for _, body in self.asked]

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        self.other.append(handler.path)
        if handler.path in ("/version", "/health"):
            return _send(handler, 200, {"version": "0.32.0"})
        if handler.path != "/v1/models":
            return _send(handler, 404, {"detail": "Not Found"})
        if self._refused(handler):
            return None
        if self.listing is not None:
            return _send(handler, *self.listing)
        card: dict[str, Any] = {"id": self.model, "object": "model", "owned_by": self.owned_by}
        if self.owned_by == "vllm":
            card |= {"root": self.root, "parent": None, "max_model_len": self.max_model_len}
        return _send(handler, 200, {"object": "list", "data": [card]})

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if handler.path == "/tokenize" and self.owned_by == "vllm":
            self.other.append(handler.path)
            return _send(handler, 200, {"count": _tokens(body), "max_model_len": 0, "tokens": []})
        if handler.path not in ("/v1/completions", "/v1/chat/completions"):
            return _send(handler, 404, {"detail": "Not Found"})
        if self._refused(handler):
            return None
        with self._guard:
            self.asked.append((handler.path.removeprefix("/v1/"), body))
            trouble = self.troubles.popleft() if self.troubles else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.hanging:
                trouble = Trouble("stall")
            if trouble is None and (refused := self.refusal(body)) is not None:
                return _send(handler, *refused)
            return self._complete(handler, body, trouble)
        finally:
            with self._guard:
                self._at_once -= 1

    def _refused(self, handler: BaseHTTPRequestHandler) -> bool:
        if self.key is None or handler.headers.get("Authorization") == f"Bearer {self.key}":
            return False
        _send(handler, 401, {"error": "Unauthorized"})
        return True

    def _complete(
        self, handler: BaseHTTPRequestHandler, body: dict[str, Any], trouble: Trouble | None
    ) -> None:
        if body.get("model") != self.model:
            error = {"error": {"message": f"The model `{body.get('model')}` does not exist."}}
            return _send(handler, 404, error)
        kind = trouble.kind if trouble else "none"
        if kind == "stall":
            self._over.wait()
        elif kind == "trickle":
            handler.send_response(200)
            handler.end_headers()
            while not self._over.wait(TRICKLE_S):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        elif trouble is not None and kind == "status":
            given = {"Retry-After": trouble.retry_after, "Location": trouble.location}
            headers = {name: value for name, value in given.items() if value is not None}
            error = {"error": {"message": trouble.text or f"trouble {trouble.status}"}}
            _send(handler, trouble.status, error, headers)
        elif trouble is not None and kind == "body":
            _send(handler, 200, trouble.body)
        elif trouble is not None and kind == "raw":
            handler.close_connection = True
            for part in trouble.raw():
                if self._over.is_set():
                    break
                handler.wfile.write(part)
        elif kind != "drop":
            text = trouble.text if trouble is not None and kind == "text" else None
            reason = trouble.finish_reason if trouble else "stop"
            dressed = self.dress(self._body(handler.path, body, text, reason))
            _send(handler, 200, dressed, cut=kind == "cut")
        return None

    def _body(
        self, path: str, body: dict[str, Any], text: str | None, reason: str
    ) -> dict[str, Any]:
        n = body.get("n", 1) if self.honours_n else 1
        text = self.answer(body) if text is None else text
        choices: list[dict[str, Any]] = []
        for index in range(n):
            choice: dict[str, Any] = {"index": index, "finish_reason": reason}
            if path.endswith("chat/completions"):
                choice["message"] = {"role": "assistant", "content": text}
            else:
                choice["text"] = text
            if "prompt_logprobs" in body:
                value = self.likelihood(body["prompt"])
                choice["prompt_logprobs"] = [None] + [{"7": {"logprob": value}}] * (
                    _tokens(body) - 1
                )
            if body.get("logprobs"):
                choice["logprobs"] = {"token_logprobs": [-0.5] * len(text.split())}
            choices.append(choice)
        written = n * len(text.split())
        usage = {"prompt_tokens": _tokens(body), "completion_tokens": written}
        return {"id": "x", "model": self.model, "choices": choices, "usage": usage}


def _tokens(body: dict[str, Any]) -> int:
    """Number of tokens, one a word."""
    if "messages" in body:
        return sum(len(message["content"].split()) for message in body["messages"])
    return len(body["prompt"].split())


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: Any,
    headers: dict[str, str] | None = None,
    cut: bool = False,
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if cut else body)
