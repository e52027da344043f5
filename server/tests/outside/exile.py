"""An exile server in a home of its own, and the part of its HTTP API that the judges use."""

import dataclasses
import json
import pathlib
import re
import urllib.error
import urllib.request

from processes import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
GRAPHS = REPOSITORY / "graphs"


@dataclasses.dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: int
    name: str
    data: dict


class Exile(Program):
    """Serves on a free port from `folder`, configured by the text of an `exile.yaml`."""

    def __init__(self, binary: str, folder: pathlib.Path, config: str, **environment: str):
        folder.mkdir()
        (folder / "exile.yaml").write_text(config)
        self.home = folder / ".exile"
        command = [binary, "--home", str(self.home), "--graphs", str(GRAPHS)]
        command += ["--config", str(folder / "exile.yaml"), "--bind", "127.0.0.1:0", "serve"]
        super().__init__("exile", command, folder, **environment)
        # No proxy: everything is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self):
        ready = re.compile(r"exile listening on (http://[^\s/]+)")
        try:
            found = self.await_value("ready line", 20, lambda: ready.search(self.text()))
        except BaseException:
            self.__exit__()
            raise
        self.url = found[1]
        self.key = (self.home / "local.key").read_text().strip()
        return self

    def _open(self, path: str, body: dict | None, accept: str):
        headers = {"Authorization": f"Bearer {self.key}", "Accept": accept}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        return self._opener.open(request, timeout=60)

    def json(self, path: str, body: dict | None = None) -> dict:
        """POSTs `body`, or GETs without one."""
        with self._open(path, body, "application/json") as answer:
            return json.load(answer)

    def conversation(self, **settings: str) -> str:
        """A new conversation's id."""
        return self.json("/api/conversations", settings)["id"]

    def say(self, conversation: str, content: str) -> dict:
        """One message and its answer in one piece."""
        return self.json(f"/api/conversations/{conversation}/messages", {"content": content})

    def stream(self, conversation: str, content: str) -> list[Event]:
        """One message and every event until the stream ends."""
        path = f"/api/conversations/{conversation}/messages"
        with self._open(path, {"content": content, "stream": True}, "text/event-stream") as answer:
            text = answer.read().decode()
        return [event(block) for block in text.split("\n\n") if "data:" in block]


def event(block: str) -> Event:
    """Reads `id`, `event` and `data` of one block; comments are passed over."""
    fields = dict(line.split(":", 1) for line in block.splitlines() if not line.startswith(":"))
    data = json.loads(fields["data"])
    return Event(int(fields["id"]), fields["event"].strip(), data)


def named(events: list[Event], name: str) -> list[Event]:
    """The events of that name, in order."""
    return [event for event in events if event.name == name]
