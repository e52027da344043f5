"""Stands between the clients and exile and keeps what was said, byte for byte.

It knows nothing of HTTP while it relays, so that it cannot delay a piece or hide that a side left;
what it kept is read as HTTP afterwards."""

import dataclasses
import http.client
import io
import json
import socket
import threading


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request and what exile answered, as far as it came."""

    path: str
    asked: dict
    status: int
    kind: str
    body: bytes

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.kind.startswith("text/event-stream")

    def events(self) -> list[str]:
        """The data of each event that came whole."""
        text = self.body.decode(errors="replace").replace("\r\n", "\n")
        blocks = [block.splitlines() for block in text.split("\n\n")[:-1]]
        data = [[line[5:].strip() for line in lines if line.startswith("data:")]
                for lines in blocks]
        return ["\n".join(lines) for lines in data if lines]


class Recorder:
    """Relays to `url` on a loopback port of its own while the `with` lasts."""

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[tuple[bytearray, bytearray]] = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            kept = (bytearray(), bytearray())
            self._connections.append(kept)
            for ends in [(client, server, kept[0]), (server, client, kept[1])]:
                threading.Thread(target=relay, args=ends, daemon=True).start()

    def exchanges(self) -> list[Exchange]:
        """Every exchange so far, each connection's in order."""
        return [exchange
                for sent, received in list(self._connections)
                for exchange in read(bytes(sent), bytes(received))]


def relay(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    """Keeps and passes on until either side ends; then both are told."""
    for end in (source, target):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while data := source.recv(65536):
            kept += data
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class _Kept(io.BytesIO):
    """What `http.client` takes for a socket: bytes that were received before."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self

    def close(self):
        """Stays open: an answer read to its end must not end the ones behind it."""


def read(sent: bytes, received: bytes) -> list[Exchange]:
    """The exchanges of one connection; a request without an answer is left out."""
    requests, answers, found = io.BytesIO(sent), _Kept(received), []
    while line := requests.readline():
        method, path, _ = line.decode().split()
        headers = http.client.parse_headers(requests)
        asked = requests.read(int(headers["Content-Length"] or 0))
        if answers.tell() == len(received):
            break
        answer = http.client.HTTPResponse(answers, method=method)
        answer.begin()
        try:
            body = answer.read()
        except http.client.IncompleteRead as cut:
            body = cut.partial
        kind = answer.headers["Content-Type"] or ""
        found.append(Exchange(path, json.loads(asked or "{}"), answer.status, kind, body))
    return found
