"""The model behind exile: scripts that need more than one turn of `upstream.py`'s model.

The last user message chooses the script:

| it holds | the model |
|---|---|
| `both at once` | calls both tools in one message, then answers from their results |
| `as JSON` | says `PLAN` |
| `fail with 500`, `fail with 429` | answers that |
| `break off` | says two pieces, then cuts the connection |
| `report an error` | says two pieces, then sends an error as providers do, in the stream |
| `go on forever` | says a piece every 20 ms until the other side leaves |
| `stay silent` | sends nothing until the other side leaves |
| anything else | says `GREETING` |
"""

import base64
import http.server
import json
import re
import select
import socket
import struct
import sys
import time

import upstream
from upstream import GREETING, USAGE, Asked, deltas, text_of

PLAN = {"city": "Paris", "days": 3}
HEAD = {"id": "up-1", "created": 1, "model": "model-a"}


def vector(text: str) -> list[float]:
    """Numbers that four bytes hold exactly, so that no way of sending them changes them."""
    return [0.25, -0.5, float(len(text)), 2.0**-20]


class Lab(upstream.Upstream):
    """Also remembers when others left it (`time.time()`) while it was still answering."""

    def __init__(self):
        self.asked: list[Asked] = []
        self.embedded: list[dict] = []
        self.left: list[float] = []
        handler = type("Handler", (_Handler,), {"lab": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Passes over connections that others cut, which the scripts are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    # A stream of 1.1 has an end of its own, so that a cut connection is no end.
    protocol_version = "HTTP/1.1"
    lab: Lab

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/embeddings"):
            self.lab.embedded.append(body)
            return self._embeddings(body)
        self.lab.asked.append(Asked(self.headers["Authorization"], body))
        user = [m for m in body["messages"] if m["role"] == "user"]
        script = text_of(user[-1]) if user else ""
        if found := re.search(r"fail with (\d+)", script):
            error = {"message": "scripted failure", "type": "scripted", "code": None}
            return self._json(int(found[1]), {"error": error})
        if "stay silent" in script:
            return self._note_leaving()
        text, calls = upstream.reply(body["messages"])
        if "as JSON" in script:
            text = json.dumps(PLAN)
        if body.get("stream"):
            return self._stream(script, text, calls)
        self._whole(text, calls)

    def _whole(self, text: str, calls: list):
        message = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": finish(calls)}
        kind = {"object": "chat.completion"}
        self._json(200, {**HEAD, **kind, "choices": [choice], "usage": USAGE})

    def _stream(self, script: str, text: str, calls: list):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if "go on forever" in script:
            return self._go_on()
        if "break off" in script or "report an error" in script:
            for piece in GREETING[:2]:
                self._delta({"content": piece})
            if "break off" in script:
                return self._cut()
            self._event({"error": {"message": "scripted failure", "type": "server_error"}})
        else:
            for delta in deltas(text, calls):
                self._delta(delta)
            self._chunk(choices=[{"index": 0, "delta": {}, "finish_reason": finish(calls)}])
            self._chunk(choices=[], usage=USAGE)
            self._write(b"data: [DONE]\n\n")
        self._write(b"")

    def _go_on(self):
        while not self._is_left(0.02):
            try:
                self._delta({"content": "on "})
            except OSError:
                break
        self._note_leaving()

    def _note_leaving(self):
        while not self._is_left(30):
            pass
        self.lab.left.append(time.time())
        self.close_connection = True

    def _is_left(self, seconds: float) -> bool:
        """Whether the other side closes its end within that time."""
        if not select.select([self.connection], [], [], seconds)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _cut(self):
        """Ends the connection in a way that no one takes for the end of the answer."""
        linger = struct.pack("ii", 1, 0)
        time.sleep(0.1)  # a reset drops what the other side has not read yet
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def _delta(self, delta: dict):
        self._chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}])

    def _chunk(self, **chunk):
        self._event({**HEAD, "object": "chat.completion.chunk", **chunk})

    def _event(self, event: dict):
        self._write(f"data: {json.dumps(event)}\n\n".encode())

    def _write(self, data: bytes):
        """One piece of HTTP's chunked coding; an empty one ends the body."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _embeddings(self, body: dict):
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors: list = [vector(text) for text in texts]
        if body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
        usage = {"prompt_tokens": USAGE["prompt_tokens"], "total_tokens": USAGE["prompt_tokens"]}
        self._json(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _json(self, status: int, body: dict):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing: the judge looks at what was asked."""


def finish(calls: list) -> str:
    """Why the model stopped."""
    return "tool_calls" if calls else "stop"
