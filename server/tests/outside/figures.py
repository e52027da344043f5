"""Measures what server/FIGURES.md states of the binary: start, memory, an answer, bytes per turn.

Each figure is the median of several starts; the machine and its load show in the spread."""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time

from exile import Exile

STARTS = 7
# Beyond three times of this the machine is no excuse.
PROMISED_READY_MS = 100
TURNS = 200


def spread(values: list[float], unit: str) -> str:
    """Median, and the lowest and highest."""
    middle = statistics.median(values)
    return f"{middle:.0f} {unit} ({min(values):.0f}–{max(values):.0f})"


def resident_mb(pid: int) -> float:
    """Resident memory of a process, from the kernel's own count."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


@dataclasses.dataclass(frozen=True)
class Starts:
    """What several starts in empty homes took, one value each."""

    ready_ms: list[float]
    idle_mb: list[float]
    answer_ms: list[float]


def starts(binary: str, folder: pathlib.Path) -> Starts:
    """Ready time to the moment the ready line can be read, and idle memory a second later."""
    ready, memory, answer = [], [], []
    for n in range(STARTS):
        began = time.monotonic()
        with Exile(binary, folder / f"start{n}", "") as server:
            ready.append((time.monotonic() - began) * 1000)
            time.sleep(1)
            memory.append(resident_mb(server.pid))
            conversation = server.conversation()
            began = time.monotonic()
            server.say(conversation, "hello")
            answer.append((time.monotonic() - began) * 1000)
    return Starts(ready, memory, answer)


def turns(binary: str, folder: pathlib.Path) -> None:
    """Time and disk of many turns of one conversation."""
    with Exile(binary, folder / "turns", "") as server:
        conversation = server.conversation()
        began = time.monotonic()
        for n in range(TURNS):
            server.say(conversation, f"turn {n}")
        each = (time.monotonic() - began) * 1000 / TURNS
        home = server.home
    size = sum(file.stat().st_size for file in home.glob("exile.db*"))
    print(f"a turn of a conversation over HTTP, stored: {each:.1f} ms ({TURNS} turns)")
    print(f"database after {TURNS} turns: {size / 1024:.0f} KB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exile", required=True, help="the release binary")
    binary = str(pathlib.Path(parser.parse_args().exile).resolve())
    with tempfile.TemporaryDirectory() as folder:
        measured = starts(binary, pathlib.Path(folder))
        print(f"ready after start, empty home: {spread(measured.ready_ms, 'ms')}")
        print(f"idle memory: {spread(measured.idle_mb, 'MB')}")
        print(f"first answer of the mock over HTTP: {spread(measured.answer_ms, 'ms')}")
        turns(binary, pathlib.Path(folder))
    ready = statistics.median(measured.ready_ms)
    if ready > 3 * PROMISED_READY_MS:
        print(f"ready after {ready:.0f} ms, where {PROMISED_READY_MS} are promised")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
