"""A real HTTP server on loopback that answers like a provider, or misbehaves as a test tells it to."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as the server saw it: its number from 0, and which attempt at its body it is, from 0."""

    number: int
    attempt: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes = b""

    @property
    def prompt(self) -> str:
        """The last message, or the plain prompt."""
        return self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"]


@dataclass(frozen=True)
class Response:
    """What to send; `way` says how: whole, or misbehaving."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    way: str = "whole"  # whole | cut | reset | hang | drip


def answer(text: Any = "an answer", finish: str | None = "stop", **changes: Any) -> Response:
    """A chat completion; `changes` replace top-level fields, `message` adds to the message."""
    message = {"role": "assistant", "content": text, **changes.pop("message", {})}
    value = {
        "id": "x",
        "object": "chat.completion",
        "model": "big",
        "choices": [{"index": 0, "message": message, "text": text, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        **changes,
    }
    return as_json({k: v for k, v in value.items() if v != "left out"})


def as_json(value: Any, status: int = 200, **headers: str) -> Response:
    """Any JSON; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): v for name, v in headers.items()}
    return Response(json.dumps(value).encode(), status, {"Content-Type": "application/json", **named})


def error(status: int, message: str = "no", **fields: Any) -> Response:
    """An error as OpenAI words it; `headers` go beside it."""
    headers = fields.pop("headers", {})
    return as_json({"error": {"message": message, **fields}}, status, **headers)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # many connect at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed has left


Script = Callable[[Call], Response]


class Server:
    """The running server and what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self._attempts: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self.gone = threading.Event()  # set when the test is over: hanging responses end
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def take(self, handler: BaseHTTPRequestHandler) -> Response:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self._lock:
            mark = handler.path.encode() + raw
            attempt = self._attempts.get(mark, 0)
            self._attempts[mark] = attempt + 1
            try:
                body = json.loads(raw or b"null")
            except ValueError:
                body = None
            call = Call(len(self.calls), attempt, handler.command, handler.path, dict(handler.headers), body, raw)
            self.calls.append(call)
        return self.script(call)

    def _handler(server: "Server") -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                with contextlib.suppress(OSError):
                    self._send(server.take(self))

            do_GET = do_POST  # noqa: N815

            def _send(self, response: Response) -> None:
                if response.way == "hang":
                    server.gone.wait(30)
                    self.close_connection = True
                    return
                if response.way == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                if response.way == "cut":
                    self.wfile.write(response.body[: len(response.body) // 2])
                    self.close_connection = True
                elif response.way == "drip":
                    for byte in response.body:
                        if server.gone.wait(0.02):
                            return
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                else:
                    self.wfile.write(response.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def __enter__(self) -> "Server":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gone.set()
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def serve(script: Script) -> Iterator[Server]:
    """Serve while the block runs."""
    with Server(script) as server:
        yield server


class FakeClock:
    """A clock that sleeps without waiting; it notes every sleep."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        import asyncio

        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def http_date(seconds_from_now: float) -> str:
    """An HTTP date."""
    from email.utils import formatdate

    return formatdate(time.time() + seconds_from_now, usegmt=True)
