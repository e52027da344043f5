"""How long both servers take until they answer, and what they hold when idle."""

import contextlib
import functools
import json
import os
import pathlib
import statistics
import tempfile
import time
import urllib.request

import figures
from processes import Program, free_port

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict):
    n: int

graph = StateGraph(State).add_node("one", lambda _: {"n": 1}).add_edge(START, "one").compile()
"""

STARTS = 3
"""Of `langgraph dev`, which takes seconds."""


@functools.cache
def exile(binary: str, place: pathlib.Path) -> dict[str, dict]:
    """`exile serve` in an empty home: figures `ready` and `idle`."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        starts = figures.starts(binary, pathlib.Path(folder))
    return summary(starts.ready_ms, starts.idle_mb, "exile serve")


@functools.cache
def langgraph(venv: pathlib.Path, place: pathlib.Path) -> dict[str, dict]:
    """`langgraph dev` with a graph of one node, without reloading: `ready` and `idle`."""
    ready, idle = [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            began = time.monotonic()
            with development_server(venv, pathlib.Path(folder)) as server:
                ready.append((time.monotonic() - began) * 1000)
                time.sleep(1)
                idle.append(figures.resident_mb(server.pid))
    return summary(ready, idle, "langgraph dev")


@contextlib.contextmanager
def development_server(venv: pathlib.Path, folder: pathlib.Path):
    """A `langgraph dev` that answers."""
    (folder / "graph.py").write_text(GRAPH)
    settings = {"dependencies": ["."], "graphs": {"one": "./graph.py:graph"}}
    (folder / "langgraph.json").write_text(json.dumps(settings))
    port = free_port()
    command = [str(venv / "bin" / "langgraph"), "dev", "--no-browser", "--no-reload"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"}
    # As in an activated environment: the command looks for its parts on the path.
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    with Program("langgraph", command, folder, **environment) as server:
        server.await_value("/ok", 60, lambda: answers(f"http://127.0.0.1:{port}/ok"))
        yield server


def answers(url: str) -> bool:
    """Whether it does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def summary(ready_ms: list[float], idle_mb: list[float], how: str) -> dict[str, dict]:
    """Seconds and bytes."""

    def figure(values: list[float], unit: float) -> dict:
        return {"median": statistics.median(values) * unit, "best": min(values) * unit, "how": how}

    return {"ready": figure(ready_ms, 1e-3), "idle": figure(idle_mb, 1e6)}
