"""A server on the loopback that answers JSON by a function of the tests."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: Any


class Served:
    """What is asked, and what was.

    Attributes:
        statuses: Of the next answers in the place of what they would be; 0 breaks the connection.
    """

    def __init__(self, answer: Callable[[Request], tuple[int, Any]]) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self.statuses: list[int] = []
        self.api_key: tuple[str, str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answered(self, request: Request) -> tuple[int, Any]:
        self.asked.append(request)
        if self.statuses:
            return self.statuses.pop(0), {"message": "as the test has it"}
        if self.api_key and request.headers.get(self.api_key[0]) != self.api_key[1]:
            return 401, {"message": "no key"}
        return self.answer(request)


@contextmanager
def serving(answer: Callable[[Request], tuple[int, Any]]) -> Iterator[Served]:
    """A server that is stopped at the end of the block."""
    served = Served(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes, and a client acknowledges the first after 40 ms.
        disable_nagle_algorithm = True

        def _do(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            request = Request(
                self.command,
                parts.path,
                parse_qs(parts.query),
                self.headers,
                json.loads(body) if body else None,
            )
            status, answer = served.answered(request)
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            sent = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_HEAD = _do  # noqa: N815 - the base's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
