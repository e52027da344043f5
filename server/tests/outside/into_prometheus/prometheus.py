"""A running Prometheus and what it has read."""

import json
import time
import urllib.parse

from web import fetch


class Prometheus:
    """The API of a Prometheus."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return fetch(f"{self.url}/-/ready").status == 200
        except OSError:
            return False

    def ask(self, path: str, **parameters) -> list | dict:
        """The data of an answer; what Prometheus finds wrong is raised."""
        form = urllib.parse.urlencode(parameters, doseq=True).encode()
        answer = json.loads(fetch(f"{self.url}/api/v1/{path}", body=form or None).text)
        if answer["status"] != "success":
            raise AssertionError(answer["error"])
        return answer["data"]

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series, now."""
        found = self.ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def ranges(self, expression: str) -> list[float]:
        """All values of the last seconds."""
        now = time.time()
        span = {"start": now - 4, "end": now, "step": 1}
        found = self.ask("query_range", query=expression, **span)["result"]
        return [float(value) for series in found for _, value in series["values"]]

    def scrapes(self) -> float:
        """How often exile was read."""
        found = self.values('count_over_time(up{job="exile"}[10m])')
        return sum(value for _, value in found)
