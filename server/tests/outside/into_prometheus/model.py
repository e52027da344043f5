"""A model that tells what it used, and remembers it."""

import dataclasses
import http.server
import json
import threading
import time

import upstream

# Of a million tokens.
PRICE = {"input": 2.5, "cached": 0.3, "cache_write": 3.75, "output": 10}

# Kinds of tokens, as metrics are named after them.
TOKENS = ["input", "output", "cache_read_input", "cache_write_input", "reasoning_output"]

# Before every piece of an answer.
PAUSE = 0.01


@dataclasses.dataclass(frozen=True)
class Told:
    """What the model answered to one request; `usage` is of answers alone, by kind of token."""

    model: str
    graph: str
    pieces: int
    usage: dict[str, int] | None


class Model:
    """An OpenAI-compatible model: `upstream`'s scripts, and usage that differs from call to call.

    `refuse` is answered 400, `outage` 503; `bad sum` calls `calculator` with what is none."""

    def __init__(self):
        self.told: list[Told] = []
        # The graph that is asking: the judge makes one call after the other.
        self.graph = ""
        handler = type("Handler", (_Handler,), {"model": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def next_usage(self) -> dict[str, int]:
        """By kind of token; no two sums of these agree by accident."""
        n = len(self.told) + 1
        counts = [1000 + 37 * n, 90 + 3 * n, 300 + n, 40 + 5 * n, 20 + 2 * n]
        return dict(zip(TOKENS, counts, strict=True))


class _Handler(http.server.BaseHTTPRequestHandler):
    model: Model

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = max(i for i, m in enumerate(body["messages"]) if m["role"] == "user")
        text = upstream.text_of(body["messages"][last])
        for word, status in [("refuse", 400), ("outage", 503)]:
            if word in text:
                self.model.told.append(Told(body["model"], self.model.graph, 0, None))
                return self._json(status, {"error": {"message": f"scripted {word}"}})
        said, calls = upstream.reply(body["messages"])
        if "bad sum" in text and len(body["messages"]) == last + 1:
            said, calls = "", [("call_c", "calculator", {"expression": "1 +"})]
        deltas = list(upstream.deltas(said, calls))
        usage = self.model.next_usage()
        pieces = sum(bool(delta.get("content")) for delta in deltas)
        self.model.told.append(Told(body["model"], self.model.graph, pieces, usage))
        finish = "tool_calls" if calls else "stop"
        if body.get("stream"):
            return self._stream(body["model"], deltas, finish, wire(usage))
        message = {"role": "assistant", "content": said or None}
        if calls:
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": finish}
        head = {"id": "up-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        self._json(200, {**head, "choices": [choice], "usage": wire(usage)})

    def _stream(self, model: str, deltas: list[dict], finish: str, usage: dict):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": model}

        def send(**chunk):
            time.sleep(PAUSE)
            self.wfile.write(f"data: {json.dumps({**head, **chunk})}\n\n".encode())
            self.wfile.flush()

        for delta in deltas:
            send(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        send(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
        send(choices=[], usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, status: int, body: dict):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing: the judge looks at `told`."""


def wire(usage: dict[str, int]) -> dict:
    """Usage as OpenAI's protocol writes it."""
    return {
        "prompt_tokens": usage["input"],
        "completion_tokens": usage["output"],
        "total_tokens": usage["input"] + usage["output"],
        "prompt_tokens_details": {
            "cached_tokens": usage["cache_read_input"],
            "cache_write_tokens": usage["cache_write_input"],
        },
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning_output"]},
    }


def cost(usage: dict[str, int]) -> float:
    """In whole units: each token once, reasoning within output."""
    cached, written = usage["cache_read_input"], usage["cache_write_input"]
    plain = usage["input"] - cached - written
    parts = [
        plain * PRICE["input"],
        cached * PRICE["cached"],
        written * PRICE["cache_write"],
        usage["output"] * PRICE["output"],
    ]
    return sum(parts) / 1e6
