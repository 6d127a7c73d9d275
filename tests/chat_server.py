"""A chat endpoint on the loopback device that answers as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSE = "close the connection"
"""Instead of a reply: hang up without a word."""


@dataclass
class Reply:
    """What the server sends: a text as a chat completion, or a raw body with a status."""

    text: str | None = "ok"
    status: int = 200
    body: bytes | None = None
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    """Pause before each byte of the body."""

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body
        choice = {"message": {"content": self.text}, "finish_reason": self.finish_reason}
        return json.dumps({"choices": [choice]}).encode()


Script = Callable[[dict[str, Any], int], Reply | str]
"""(request body, how many times this very body was sent before) -> what to send."""


@dataclass
class ChatServer:
    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def chat_server(script: Script) -> Iterator[ChatServer]:
    """Serves until the block ends."""
    lock, running = threading.Lock(), [0]
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = server.requests.count(body)
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                running[0] += 1
                server.most_at_once = max(server.most_at_once, running[0])
            try:
                assert self.path == "/v1/chat/completions", self.path
                self.send(script(body, before))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up
            finally:
                with lock:
                    running[0] -= 1

        def send(self, reply: Reply | str) -> None:
            if isinstance(reply, str):
                assert reply == CLOSE
                self.close_connection = True
                return
            payload = reply.payload()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if not reply.drip_s:
                self.wfile.write(payload)
                return
            for byte in payload:
                closing.wait(reply.drip_s)
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ChatServer(f"http://127.0.0.1:{web.server_port}/v1")
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        closing.set()
        web.shutdown()
        thread.join()
        web.server_close()
