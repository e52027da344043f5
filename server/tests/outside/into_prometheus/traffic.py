"""What is asked of exile, and how much of it."""

import collections
import time

from exile import Exile
from exposition import DURATION, RUN, Figures
from judge import equal
from model import Model
from web import Answer, fetch

PROVIDER = "lab"

# What no label may hold.
SECRET_WORD = "canary-4711"


class Traffic:
    """Asks exile for one thing of every kind, and keeps count."""

    def __init__(self, exile: Exile, model: Model):
        self.exile = exile
        self.model = model
        self.admin = (exile.home / "local.key").read_text().strip()
        self.keys = {}
        for user in ("plain", "limited", "poor"):
            exile.json("/api/users", {"name": user})
            self.keys[user] = self.make_key(user)
        self.keys["scraper"] = self.make_key("plain", "scraper", ["metrics"])
        # By method, end of the route and status.
        self.requests = collections.Counter()
        self.runs = collections.Counter()
        self.tools = collections.Counter()
        self.refusals = collections.Counter()
        self.seconds = 0.0
        # How much the model had been asked when the last round began.
        self.before = 0

    def make_key(self, user: str, name: str = "", scopes: tuple | list = ()) -> str:
        """A new key's secret."""
        body = {"user": user, "name": name or user, "scopes": list(scopes)}
        made = self.exile.json("/api/keys", body)
        if user == "limited":
            # A key is known by its id, which there is no telling before.
            quota = f"{self.exile.url}/api/quotas/key/{made['id']}"
            equal(fetch(quota, self.admin, {"requests": "1/day"}, "PUT").status, 200)
        return made["secret"]

    def round(self) -> None:
        """Everything once, one after the other."""
        began, self.before = time.monotonic(), len(self.model.told)
        equal(self.complete("Good morning").status, 200)
        streamed = self.complete("Good evening", stream=True)
        equal(streamed.status, 200)
        assert "[DONE]" in streamed.text, streamed
        for text, model in [("Please refuse", "steady"), ("An outage", "down")]:
            answer = self.complete(text, model)
            assert answer.status >= 400, answer
        self.run("agent", "Use your tools, one by one", 200)
        self.tools["calculator", "agent", False] += 1
        self.tools["current_time", "agent", False] += 1
        self.run("agent", "A bad sum", 200)
        self.tools["calculator", "agent", True] += 1
        self.run("chat", "Please refuse", None)
        self.exhaust("key", "requests", key="limited")
        self.exhaust("user", "tokens", key="poor")
        self.exhaust("model", "money", model="costly")
        self.seconds += time.monotonic() - began

    def complete(self, text, model="steady", stream=False, key=None) -> Answer:
        """A call of a model that passes through."""
        self.model.graph = ""
        messages = [{"role": "user", "content": f"{text} {SECRET_WORD}"}]
        body = {"model": f"{PROVIDER}/{model}", "messages": messages, "stream": stream}
        key = self.keys[key] if key else self.admin
        answer = fetch(f"{self.exile.url}/v1/chat/completions", key, body)
        self.requests["POST", "/v1/chat/completions", answer.status] += 1
        return answer

    def run(self, graph: str, text: str, expected: int | None) -> None:
        """A run in a conversation of its own; `None`: one that fails."""
        self.model.graph = graph
        conversation = self.exile.conversation(graph=graph)
        url = f"{self.exile.url}/api/conversations/{conversation}/messages"
        answer = fetch(url, self.admin, {"content": f"{text} {SECRET_WORD}"})
        self.requests["POST", "/messages", answer.status] += 1
        failed = answer.status >= 400
        equal(failed, expected is None)
        self.runs[graph, failed] += 1

    def exhaust(self, kind: str, unit: str, **call) -> None:
        """A call that is refused; before the first of them, the one that uses the quota up."""
        if not self.refusals[kind, unit]:
            equal(self.complete("Once", **call).status, 200)
        equal(self.complete("Once too often", **call).status, 429)
        self.refusals[kind, unit] += 1

    def metrics(self) -> Answer:
        """As they are, once everything that was sent is counted, or was not for too long."""
        expected = [len(self.model.told), sum(self.runs.values())]
        page = self.scrape()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            figures = Figures(page.text)
            if expected == [figures.total(DURATION + "_count"), figures.total(RUN + "_count")]:
                break
            time.sleep(0.05)
            page = self.scrape()
        return page

    def scrape(self) -> Answer:
        """What /metrics says now."""
        return fetch(f"{self.exile.url}/metrics", self.admin)
