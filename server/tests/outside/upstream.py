"""An OpenAI-compatible model that follows a script, and remembers what it was asked.

The last user message chooses the script:

| it holds | the model |
|---|---|
| `one by one` | calls `calculator`, then `current_time`, then answers from both results |
| `both at once` | calls both in one message, then answers |
| `refuse` | answers 400 |
| anything else | says `GREETING` |
"""

import dataclasses
import http.server
import json
import threading

MODEL = "scripted"
KEY = "upstream-key"
GREETING = ["Hello", ", ", "你好", "!"]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

CALCULATOR = ("call_a", "calculator", {"expression": "17 * 23"})
CURRENT_TIME = ("call_b", "current_time", {"timezone": "Asia/Shanghai"})


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request for a completion."""

    authorization: str | None
    body: dict


class Upstream:
    """Serves on a loopback port of its own while the `with` lasts."""

    def __init__(self):
        self.asked: list[Asked] = []
        handler = type("Handler", (_Handler,), {"upstream": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def reply(messages: list[dict]) -> tuple[str, list]:
    """What the model says and calls: text pieces joined, calls as (id, name, arguments)."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=0)
    script = text_of(messages[last])
    results = [text_of(m) for m in messages[last:] if m["role"] == "tool"]
    if "one by one" in script and len(results) < 2:
        return "", [[CALCULATOR, CURRENT_TIME][len(results)]]
    if "both at once" in script and not results:
        return "", [CALCULATOR, CURRENT_TIME]
    if results:
        return "Results: " + " | ".join(results), []
    return "".join(GREETING), []


def text_of(message: dict) -> str:
    """The content, which a client may send as a text or as parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def deltas(text: str, calls: list):
    """The pieces of a streamed answer; the fragments of several calls arrive in turns."""
    yield {"role": "assistant", "content": ""}
    for piece in GREETING if text == "".join(GREETING) else [text[:9], text[9:]]:
        if piece:
            yield {"content": piece}
    for index, (id, name, _) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
    rest = [json.dumps(arguments) for _, _, arguments in calls]
    while any(rest):
        for index, fragment in enumerate(rest):
            if fragment:
                function = {"arguments": fragment[:6]}
                yield {"tool_calls": [{"index": index, "function": function}]}
        rest = [fragment[6:] for fragment in rest]


class _Handler(http.server.BaseHTTPRequestHandler):
    upstream: Upstream

    def do_GET(self):
        self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.upstream.asked.append(Asked(self.headers["Authorization"], body))
        if "refuse" in text_of(body["messages"][-1]):
            error = {"message": "scripted refusal", "type": "invalid_request_error"}
            return self._json(400, {"error": error})
        text, calls = reply(body["messages"])
        finish = "tool_calls" if calls else "stop"
        if body.get("stream"):
            return self._stream(text, calls, finish)
        message = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": finish}
        head = {"id": "up-1", "object": "chat.completion", "created": 1, "model": MODEL}
        self._json(200, {**head, "choices": [choice], "usage": USAGE})

    def _stream(self, text: str, calls: list, finish: str):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}

        def send(**chunk):
            self.wfile.write(f"data: {json.dumps({**head, **chunk})}\n\n".encode())
            self.wfile.flush()

        for delta in deltas(text, calls):
            send(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        send(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
        send(choices=[], usage=USAGE)
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, status: int, body: dict):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing: the judges look at `asked`."""
