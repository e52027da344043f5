"""Holds the binary to what server/FIGURES.md states of memory and sockets: many large bodies,
readers that do not read, half-sent heads, silent connections, and a stop among all of them.

Each figure has a bound of three times what is stated; one beyond it fails the whole."""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter

from exile import Exile
from processes import await_value

BODIES = 200
BODY = 30_000_000
READERS = 5_000
LEAVING = 1_000
HEADS = 1_000
SILENT = 1_224
CALLERS = 16
WAITING = 10_000

HANGING = '- { match: hang, reply: "never", delay_ms: 3600000 }\n'
"""The mock's script: whoever says this waits for an hour."""


class Figures:
    """What was measured, and whether it is within its bound."""

    def __init__(self):
        self.exceeded: list[str] = []

    def add(self, what: str, value: float, unit: str, stated: float):
        """Prints a figure; more than three times what is stated is too much."""
        print(f"{what}: {value:.1f} {unit} (stated {stated:g})", flush=True)
        if value > 3 * stated:
            self.exceeded.append(f"{what}: {value:.1f} {unit}, three times {stated:g} are allowed")

    def need(self, what: str, holds: bool):
        """Something that must be so."""
        print(f"{what}: {'yes' if holds else 'NO'}", flush=True)
        if not holds:
            self.exceeded.append(what)


def status(pid: int, field: str) -> float:
    """A field of a process's status, in MB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def address(server: Exile) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def connect(server: Exile) -> socket.socket:
    return socket.create_connection(address(server), timeout=120)


def head(server: Exile, request: str, *lines: str) -> bytes:
    """The head of a request of the administrator's."""
    fields = ["host: exile", f"authorization: Bearer {server.key}", *lines]
    return "\r\n".join([f"{request} HTTP/1.1", *fields, "", ""]).encode()


def ask(server: Exile, request: str, body: bytes = b"") -> bytes:
    """One request on a connection of its own; the whole answer."""
    lines = ["connection: close"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    answer = b""
    with connect(server) as stream:
        with contextlib.suppress(ConnectionError):
            stream.sendall(head(server, request, *lines))
            stream.sendall(body)
        with contextlib.suppress(ConnectionError):
            while piece := stream.recv(1 << 16):
                answer += piece
    return answer


def code(answer: bytes) -> str:
    """The status of an answer; `none` if there is none."""
    words = answer.split(b" ", 2)
    return words[1].decode() if len(words) > 2 else "none"


class Others(threading.Thread):
    """Somebody else, who says something small again and again while the `with` lasts."""

    def __init__(self, server: Exile):
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.took: list[float] = []
        self.refused: Counter[str] = Counter()
        self.peak = status(server.pid, "VmRSS")

    def run(self):
        body = b'{"graph": "chat", "input": {"messages": "hi"}}'
        while not self._over.is_set():
            began = time.monotonic()
            answered = code(ask(self._server, "POST /api/runs/wait", body))
            self.took.append((time.monotonic() - began) * 1000)
            if answered != "200":
                self.refused[answered] += 1
            self._over.wait(0.05)

    def _watch(self):
        while not self._over.wait(0.01):
            self.peak = max(self.peak, status(self._server.pid, "VmRSS"))

    def __enter__(self):
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()
        self._watching.join()

    def told(self, figures: Figures, what: str, stated_ms: float):
        """What it had to bear."""
        figures.add(f"  a turn of somebody else {what}, slowest", max(self.took), "ms", stated_ms)
        figures.need(f"  all {len(self.took)} of them were answered {dict(self.refused)}", not self.refused)


def serve(binary: str, folder: pathlib.Path, name: str, config: str = "") -> Exile:
    script = folder / "mock.yaml"
    script.write_text(HANGING)
    return Exile(binary, folder / name, config, EXILE_MOCK=str(script), EXILE_LOG="error")


def payloads(conversation: str) -> dict[str, tuple[str, bytes]]:
    """Large bodies of several kinds: what they ask, and the body."""
    zeros = b'{"model":"nobody","x":[' + b"0," * (BODY // 2) + b"0]}"
    text = {"model": "mock/mock", "messages": [
        {"role": "system", "content": "x" * BODY}, {"role": "user", "content": "hi"}]}
    picture = "data:image/png;base64," + base64.b64encode(b"\x07" * (BODY * 3 // 4)).decode()
    seen = {"content": "What is this?", "images": [picture]}
    return {
        "of numbers": ("POST /v1/chat/completions", zeros),
        "of text to a model": ("POST /v1/chat/completions", json.dumps(text).encode()),
        "with a picture": (f"POST /api/conversations/{conversation}/messages", json.dumps(seen).encode()),
    }


def bodies(binary: str, folder: pathlib.Path, figures: Figures, rest: float):
    """Many large bodies at once, kind by kind, each on a server of its own."""
    kinds = list(payloads(""))
    for n, kind in enumerate(kinds):
        with serve(binary, folder, f"bodies{n}") as server:
            request, body = payloads(server.conversation())[kind]
            answers: Counter[str] = Counter()
            ask(server, "POST /api/runs/wait", b'{"graph": "chat", "input": {"messages": "hi"}}')
            idle = status(server.pid, "VmRSS")

            def send():
                answers[code(ask(server, request, body))] += 1

            began = time.monotonic()
            with Others(server) as others:
                senders = [threading.Thread(target=send) for _ in range(BODIES)]
                for sender in senders:
                    sender.start()
                for sender in senders:
                    sender.join()
            took = time.monotonic() - began
            print(f"{BODIES} bodies of {BODY / 1e6:.0f} MB {kind}: {dict(answers)} in {took:.1f} s, idle {idle:.0f} MB")
            figures.add("  memory at most", others.peak, "MB", 400)
            others.told(figures, "meanwhile", 1000)
            time.sleep(rest)
            figures.add(f"  memory {rest:.0f} s later", status(server.pid, "VmRSS"), "MB", 100)


def hanging(server: Exile) -> str:
    """A run that goes on for an hour; its path."""
    run = server.json("/api/runs", {"graph": "chat", "input": {"messages": "hang"}})
    return f"/api/runs/{run['id']}"


def readers(server: Exile, run: str, count: int) -> list[socket.socket]:
    """So many readers of a run, each of which has got the head of its stream."""
    asked = head(server, f"GET {run}/stream", "accept: text/event-stream")
    streams = []
    for _ in range(count):
        stream = connect(server)
        stream.sendall(asked)
        streams.append(stream)
    for stream in streams:
        assert stream.recv(12).startswith(b"HTTP/1.1 200"), "a reader was refused"
    return streams


def idle_readers(binary: str, folder: pathlib.Path, figures: Figures):
    """Readers that do not read, of a run that goes on."""
    with serve(binary, folder, "readers") as server, contextlib.ExitStack() as stack:
        run = hanging(server)
        with Others(server) as others:
            for stream in readers(server, run, READERS):
                stack.enter_context(stream)
            time.sleep(3)
        figures.add(f"{READERS} idle readers: memory", others.peak, "MB", 200)
        others.told(figures, "beside them", 300)


def half_heads(binary: str, folder: pathlib.Path, figures: Figures):
    """Heads that do not end."""
    with serve(binary, folder, "heads") as server, contextlib.ExitStack() as stack:
        half = head(server, "GET /healthz")[:-2] + b"x: " + b"y" * 380_000
        with Others(server) as others:
            for _ in range(HEADS):
                stream = stack.enter_context(connect(server))
                stream.setblocking(False)
                with contextlib.suppress(OSError):
                    stream.send(half)
            time.sleep(3)
        figures.add(f"{HEADS} half-sent heads: memory", others.peak, "MB", 100)
        others.told(figures, "beside them", 300)


def silent(binary: str, folder: pathlib.Path, figures: Figures):
    """More connections than there are descriptors, none of which says anything."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = folder / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n 1024\nexec "{binary}" "$@"\n')
    limited.chmod(0o755)
    with serve(str(limited), folder, "silent") as server, contextlib.ExitStack() as stack:
        with Others(server) as others:
            for _ in range(SILENT):
                stack.enter_context(connect(server))
            time.sleep(2)
        figures.add(f"{SILENT} silent connections, 1024 descriptors: memory", others.peak, "MB", 60)
        others.told(figures, "beside them", 300)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def stop(binary: str, folder: pathlib.Path, figures: Figures):
    """A stop with readers attached, heads half sent and answers on their way."""
    with serve(binary, folder, "stop") as server, contextlib.ExitStack() as stack:
        for stream in readers(server, hanging(server), LEAVING):
            stack.enter_context(stream)
        body = json.dumps({"model": "mock/mock", "stream": True,
                           "messages": [{"role": "user", "content": "hang"}]}).encode()
        lines = ["content-type: application/json", f"content-length: {len(body)}"]
        for _ in range(50):
            stack.enter_context(connect(server)).sendall(b"GET /healthz HTTP/1.1\r\nho")
            call = stack.enter_context(connect(server))
            call.sendall(head(server, "POST /v1/chat/completions", *lines) + body)
        time.sleep(1)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        await_value("the end", 60, server.has_ended)
        took = time.monotonic() - began
        figures.add(f"SIGTERM with {LEAVING} readers, 50 half heads and 50 calls", took, "s", 6)
        figures.need("  within the ten seconds that Docker waits", took < 10)


def ready(binary: str, folder: pathlib.Path, figures: Figures):
    """Many who ask whether the server is ready, as fast as they can."""
    with serve(binary, folder, "ready") as server:
        with Others(server) as alone:
            time.sleep(3)
        over, took = threading.Event(), []

        def watch():
            while not over.is_set():
                began = time.monotonic()
                ask(server, "GET /readyz")
                took.append((time.monotonic() - began) * 1000)

        callers = [threading.Thread(target=watch) for _ in range(CALLERS)]
        with Others(server) as others:
            for caller in callers:
                caller.start()
            time.sleep(5)
            over.set()
            for caller in callers:
                caller.join()
        figures.add(f"/readyz, {CALLERS} callers, median", statistics.median(took), "ms", 20)
        usual = statistics.median(alone.took)
        print(f"  a turn alone, median: {usual:.1f} ms")
        figures.add("  a turn meanwhile, median", statistics.median(others.took), "ms", 40)


def waiting(binary: str, folder: pathlib.Path, figures: Figures):
    """Very many runs of one user that wait for their model."""
    with serve(binary, folder, "waiting") as server:
        with Others(server) as alone:
            time.sleep(3)
        body = b'{"graph": "chat", "input": {"messages": "hang"}}'
        key = server.json("/api/keys", {"name": "busy", "scopes": ["run", "act_as"]})["secret"]
        lines = ["POST /api/runs HTTP/1.1", "host: exile", f"authorization: Bearer {key}",
                 "x-exile-user: busy", "connection: close", "content-type: application/json",
                 f"content-length: {len(body)}", "", ""]
        asked, answers = "\r\n".join(lines).encode() + body, Counter()

        def begin():
            for _ in range(WAITING // CALLERS):
                with connect(server) as stream:
                    stream.sendall(asked)
                    answers[code(stream.recv(1 << 16))] += 1

        with Others(server) as meanwhile:
            callers = [threading.Thread(target=begin) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        figures.need(f"{WAITING} runs that wait for their model: {dict(answers)}", answers["202"] == WAITING)
        meanwhile.told(figures, "while they begin", 1000)

        def running() -> bool:
            gauges = ask(server, "GET /metrics").decode()
            return f'exile_runs{{status="running"}} {WAITING}\n' in gauges

        await_value("all of them to have begun", 120, running)
        # A lease is kept alive every five seconds.
        with Others(server) as others:
            time.sleep(12)
        figures.add("  memory", others.peak, "MB", 1500)
        usual, beside = statistics.median(alone.took), statistics.median(others.took)
        print(f"  a turn alone, median: {usual:.1f} ms")
        figures.add("  a turn of somebody else beside them, median", beside, "ms", 40)
        figures.need("  at most twice as long as alone", beside <= 2 * usual)
        others.told(figures, "beside them", 300)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exile", required=True, help="the release binary")
    parser.add_argument("--only", nargs="*", help="these alone")
    parser.add_argument("--rest", type=float, default=30, help="seconds until memory is given back")
    arguments = parser.parse_args()
    binary = str(pathlib.Path(arguments.exile).resolve())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = Figures()
    parts = {
        "ready": ready, "stop": stop, "silent": silent, "heads": half_heads, "readers": idle_readers,
        "waiting": waiting,
        "bodies": lambda *given: bodies(*given, arguments.rest),
    }
    for name in arguments.only or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](binary, pathlib.Path(folder), figures)
    for exceeded in figures.exceeded:
        print(f"FAILED {exceeded}", file=sys.stderr)
    return 1 if figures.exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
