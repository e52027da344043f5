"""Requests over HTTP, on this machine, whose failures are answers too."""

import dataclasses
import json
import urllib.error
import urllib.request

# No proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclasses.dataclass(frozen=True)
class Answer:
    """Of a request over HTTP."""

    status: int
    content_type: str
    text: str


def fetch(
    url: str, key: str | None = None, body: dict | bytes | None = None, method: str | None = None
) -> Answer:
    """POSTs `body`, or GETs without one; a status of failure is an answer too."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if isinstance(body, dict):
        headers["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with OPENER.open(request, timeout=60) as answer:
            return read(answer)
    except urllib.error.HTTPError as answer:
        return read(answer)


def read(answer) -> Answer:
    """Its status, type and whole text."""
    return Answer(answer.status, answer.headers["Content-Type"] or "", answer.read().decode())
