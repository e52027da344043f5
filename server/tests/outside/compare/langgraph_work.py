"""One piece of work in LangGraph, as its documentation would write it; prints a line of JSON.

Runs inside the virtual environment of `make compare`. Figures are seconds, bytes or, where the
name says so, pieces per second; `median` and `best` are of several samples of a warm process.
Where a log in memory costs LangGraph more than none, it runs without one, which is the faster."""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import operator
import os
import pathlib
import sqlite3
import statistics
import time
import uuid
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

SAID = 400
"""Characters of a user's message, and of an answer."""

LIMIT = 1_000_000
"""Steps that a run may take."""


class Number(TypedDict):
    """A small state."""

    n: int


class Sum(TypedDict):
    """A state that parallel nodes add to."""

    n: Annotated[int, operator.add]


class Count(TypedDict):
    """A count and where it ends."""

    n: int
    until: int


def chain(nodes: int, saver=None):
    """Nodes that run one after the other, each writing a number."""
    graph = StateGraph(Number)
    for i in range(nodes):
        graph.add_node(f"n{i}", lambda _, i=i: {"n": i})
        graph.add_edge(f"n{i - 1}" if i else START, f"n{i}")
    graph.add_edge(f"n{nodes - 1}", END)
    return graph.compile(saver)


def fan(nodes: int, saver=None):
    """Nodes that run at the same time, and one that waits for all."""
    graph = StateGraph(Sum)
    names = [f"n{i}" for i in range(nodes)]
    for name in names:
        graph.add_node(name, lambda _: {"n": 1})
        graph.add_edge(START, name)
    graph.add_node("join", lambda _: {"n": 1})
    graph.add_edge(names, "join")
    graph.add_edge("join", END)
    return graph.compile(saver)


def count(saver):
    """One step for each number, a small state, no calls."""

    def more(state: Count) -> str:
        return "count" if state["n"] < state["until"] else END

    graph = StateGraph(Count)
    graph.add_node("count", lambda state: {"n": state["n"] + 1})
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", more, ["count", END])
    return graph.compile(saver)


def chat(saver):
    """One step for each turn, which answers."""
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda _: {"messages": [AIMessage("a" * SAID)]})
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(saver)


def config(thread: str | None = None) -> dict:
    """A thread of its own, unless one is named."""
    return {"recursion_limit": LIMIT, "configurable": {"thread_id": thread or str(uuid.uuid4())}}


def counted(graph, steps: int) -> None:
    """One run of that many steps, each stored before the next begins."""
    graph.invoke({"n": 0, "until": steps}, config(), durability="sync")


def turn(graph, thread: str) -> None:
    """A message of a user, and its answer."""
    said = {"messages": [HumanMessage("q" * SAID)]}
    graph.invoke(said, config(thread), durability="sync")


def seconds(samples: int, work, per: int = 1) -> list[float]:
    """How long `work` took, each time, over `per`; once more before that to warm up."""
    work()
    taken = []
    for _ in range(samples):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) / per)
    return taken


def times(taken: list[float], how: str) -> dict:
    """The less the better."""
    return {"median": statistics.median(taken), "best": min(taken), "how": how}


def rates(taken: list[float], pieces: int, how: str) -> dict:
    """Pieces per second: the more the better."""
    return {"median": pieces / statistics.median(taken), "best": pieces / min(taken), "how": how}


def fewest(candidates: list[dict]) -> dict:
    """The variant that took least."""
    return min(candidates, key=lambda figure: figure["median"])


def chain_step(_: pathlib.Path) -> dict:
    """A step of a chain of 1,000 nodes."""
    nodes = 1000
    bare, saved = chain(nodes), chain(nodes, InMemorySaver())
    without = seconds(5, lambda: bare.invoke({"n": 0}, config()), nodes)
    # Once: with a saver, every step copies what is known of all 1,000 nodes.
    kept = seconds(1, lambda: saved.invoke({"n": 0}, config(), durability="sync"), nodes)
    return fewest([times(without, "no checkpointer"), times(kept, "InMemorySaver")])


def fan_out(_: pathlib.Path) -> dict:
    """100 nodes at once and a join."""
    bare, saved = fan(100), fan(100, InMemorySaver())
    without = seconds(20, lambda: bare.invoke({"n": 0}, config()))
    kept = seconds(20, lambda: saved.invoke({"n": 0}, config(), durability="sync"))
    return fewest([times(without, "no checkpointer"), times(kept, "InMemorySaver")])


def concurrent_runs(_: pathlib.Path) -> dict:
    """2,000 runs of three nodes at once."""
    runs, graph = 2000, chain(3)

    async def all_at_once() -> None:
        await asyncio.gather(*(graph.ainvoke({"n": 0}, config()) for _ in range(runs)))

    taken = seconds(3, lambda: asyncio.run(all_at_once()))
    return rates(taken, runs, "ainvoke, no checkpointer")


def durable_step(folder: pathlib.Path) -> dict:
    """A step of one run, on disk before the next."""
    steps = 500
    with SqliteSaver.from_conn_string(str(folder / "step.db")) as saver:
        graph = count(saver)
        return times(seconds(5, lambda: counted(graph, steps), steps), "SqliteSaver, sync")


def durable_runs(folder: pathlib.Path) -> dict:
    """Steps per second of 64 runs at once, each step on disk before the run's next."""
    runs, steps = 64, 20

    async def gathered() -> float:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "async.db")) as saver:
            graph = count(saver)
            began = time.perf_counter()
            given = {"n": 0, "until": steps}
            await asyncio.gather(
                *(graph.ainvoke(given, config(), durability="sync") for _ in range(runs))
            )
            return time.perf_counter() - began

    def threaded(graph, pool) -> None:
        list(pool.map(lambda _: counted(graph, steps), range(runs)))

    with (
        SqliteSaver.from_conn_string(str(folder / "threads.db")) as saver,
        concurrent.futures.ThreadPoolExecutor(runs) as pool,
    ):
        graph = count(saver)
        in_threads = seconds(3, lambda: threaded(graph, pool))
    in_one_loop = [asyncio.run(gathered()) for _ in range(3)]
    variants = [
        rates(in_threads, runs * steps, "SqliteSaver, 64 threads"),
        rates(in_one_loop, runs * steps, "AsyncSqliteSaver"),
    ]
    return max(variants, key=lambda figure: figure["median"])


def stored(folder: pathlib.Path) -> int:
    """Bytes of the database files, once the log of writes has moved into the file."""
    with contextlib.closing(sqlite3.connect(folder / "stored.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(file.stat().st_size for file in folder.glob("stored.db*"))


def bytes_per_step(folder: pathlib.Path) -> dict:
    """What a step of a small state adds to the disk."""
    steps = 2000
    with SqliteSaver.from_conn_string(str(folder / "stored.db")) as saver:
        saver.setup()
        before = stored(folder)
        counted(count(saver), steps)
        each = (stored(folder) - before) / steps
    return {"median": each, "best": each, "how": f"{steps:,} steps"}


def bytes_of_turns(folder: pathlib.Path) -> dict:
    """The file of a conversation of 500 turns."""
    with SqliteSaver.from_conn_string(str(folder / "stored.db")) as saver:
        graph = chat(saver)
        for _ in range(500):
            turn(graph, "long")
    size = stored(folder)
    return {"median": size, "best": size, "how": "SqliteSaver"}


def turn_after_opening(folder: pathlib.Path) -> dict:
    """A turn of a conversation of 500 turns over a connection that was opened just before."""
    path = str(folder / "stored.db")
    with SqliteSaver.from_conn_string(path) as saver:
        graph = chat(saver)
        for _ in range(500):
            turn(graph, "long")
    taken = []
    for _ in range(10):
        with SqliteSaver.from_conn_string(path) as saver:
            graph = chat(saver)
            began = time.perf_counter()
            turn(graph, "long")
            taken.append(time.perf_counter() - began)
    return times(taken, "SqliteSaver, sync")


WORK = [
    chain_step, fan_out, durable_step, durable_runs, concurrent_runs, bytes_per_step,
    bytes_of_turns, turn_after_opening,
]


def main() -> None:
    # Nothing is traced: no key, no network.
    os.environ["LANGSMITH_TRACING"] = "false"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=[work.__name__ for work in WORK])
    parser.add_argument("folder", type=pathlib.Path, help="an empty one on the disk to measure")
    options = parser.parse_args()
    work = next(work for work in WORK if work.__name__ == options.work)
    print(json.dumps(work(options.folder)))


if __name__ == "__main__":
    main()
