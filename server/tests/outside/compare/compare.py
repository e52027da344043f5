"""Measures exile beside LangGraph: the same work, on this machine, one right after the other.

Prints one table. A figure is the median of several samples, the best of them in brackets; the
aims are held against medians. LangGraph runs as its documentation has it, in whichever of its
ways is the fastest for that work; both store a durable step before the next one begins."""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # figures, processes

import benches
import servers

WORK = pathlib.Path(__file__).with_name("langgraph_work.py")


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of work."""

    work: str
    aim: str
    exile: Callable[[], dict]
    langgraph: Callable[[], dict]
    show: Callable[[float], str]
    met: Callable[[dict, dict], bool]
    rising: bool = False
    """Whether more is better."""


def duration(seconds: float) -> str:
    """With the unit that gives a number from 1 to 1,000."""
    for factor, unit in [(1, "s"), (1e3, "ms"), (1e6, "µs")]:
        if seconds * factor >= 1:
            break
    return f"{three_digits(seconds * factor)} {unit}"


def volume(amount: float) -> str:
    """Bytes, with a decimal unit."""
    for factor, unit in [(1e6, "MB"), (1e3, "KB"), (1, "B")]:
        if amount >= factor:
            break
    return f"{three_digits(amount / factor)} {unit}"


def speed(pieces: float) -> str:
    """Pieces per second."""
    return f"{three_digits(pieces)}/s"


def three_digits(value: float) -> str:
    """Not more digits than a measurement can know."""
    return f"{float(f'{value:.3g}'):,.10g}"


def at_most(limit: float) -> Callable[[dict, dict], bool]:
    """An aim that LangGraph has no part in."""
    return lambda exile, _: exile["median"] <= limit


def times_more(factor: float) -> Callable[[dict, dict], bool]:
    """An aim beside LangGraph."""
    return lambda exile, langgraph: exile["median"] >= factor * langgraph["median"]


def beside_a_row() -> dict:
    """A durable step, and the transaction of one row that bounds it from below."""
    step = benches.time("journal", "journal/step_of_one_run")
    row = benches.time("journal", "journal/row_of_the_same_bytes")
    times = step["median"] / row["median"]
    return step | {"times": times, "how": f"{times:.2f} × one row, {duration(row['median'])}"}


def rows(venv: pathlib.Path) -> list[Row]:
    """All of them, on the disk that exile was built on: `/tmp` may be memory."""
    binary = benches.programs()["exile"]
    place = pathlib.Path(binary).parent

    def work(name: str) -> Callable[[], dict]:
        def measure() -> dict:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                command = [str(venv / "bin" / "python"), str(WORK), name, folder]
                ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            return json.loads(ran.stdout)

        return measure

    return [
        Row("a step, chain of 1,000 nodes, in memory", "≤ 5 µs",
            lambda: benches.time("engine", "engine/chain_1000", 1000),
            work("chain_step"), duration, at_most(5e-6)),
        Row("fan-out of 100 and a join, in memory", "≤ 1 ms",
            lambda: benches.time("engine", "engine/fan_out_100_and_join"),
            work("fan_out"), duration, at_most(1e-3)),
        Row("2,000 runs of three nodes at once, in memory", "≥ 50 × LangGraph",
            lambda: benches.rate("engine", "engine/2000_runs_of_3_nodes", 2000),
            work("concurrent_runs"), speed, times_more(50), rising=True),
        Row("a durable step, one run", "≤ 1.2 × one row",
            beside_a_row,
            work("durable_step"), duration, lambda exile, _: exile["times"] <= 1.2),
        Row("durable steps, 64 runs at once", "≥ 50 × LangGraph",
            lambda: benches.rate("journal", "journal/steps_of_64_runs", 64 * 100),
            work("durable_runs"), speed, times_more(50), rising=True),
        Row("on disk for each step, small state", "≤ 200 B",
            lambda: benches.size("bytes_per_step"),
            work("bytes_per_step"), volume, at_most(200)),
        Row("on disk after 500 turns of 0.8 KB", "< 2 MB",
            lambda: benches.size("bytes_of_500_turns"),
            work("bytes_of_turns"), volume, at_most(2e6)),
        Row("turn 501, after opening", "< 20 ms",
            lambda: benches.time("journal", "journal/turn_501_after_opening"),
            work("turn_after_opening"), duration, at_most(20e-3)),
        Row("server ready after its start", "≤ 100 ms",
            lambda: servers.exile(binary, place)["ready"],
            lambda: servers.langgraph(venv, place)["ready"], duration, at_most(0.1)),
        Row("server's memory when idle", "≤ 40 MB",
            lambda: servers.exile(binary, place)["idle"],
            lambda: servers.langgraph(venv, place)["idle"], volume, at_most(40e6)),
    ]


def cell(row: Row, figure: dict) -> str:
    """The median, the best, and how."""
    notes = [row.show(figure["best"])] if figure["best"] != figure["median"] else []
    notes += [figure["how"]] if figure.get("how") else []
    return row.show(figure["median"]) + (f" ({'; '.join(notes)})" if notes else "")


def line(row: Row) -> str:
    """Measures a row; a line of the table."""
    exile, langgraph = row.exile(), row.langgraph()
    times = exile["median"] / langgraph["median"]
    times = times if row.rising else 1 / times
    verdict = "met" if row.met(exile, langgraph) else "missed"
    cells = [row.work, cell(row, exile), cell(row, langgraph), f"{three_digits(times)} ×"]
    return f"| {' | '.join([*cells, row.aim, verdict])} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=pathlib.Path, required=True, help="holds LangGraph")
    parser.add_argument("--only", default="", help="rows whose first cell holds this")
    options = parser.parse_args()
    print("| work | exile | LangGraph | better by | aim | |\n|---|---|---|---|---|---|")
    for row in rows(options.venv):
        if options.only in row.work:
            print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
