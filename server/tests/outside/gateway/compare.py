"""Measures exile's `/v1/chat/completions` beside LiteLLM's proxy: the same mock behind them, the
same load before them, one right after the other.

The gateway has one core, the mock and the load have another one. Prints one table. With
`--minutes N` it holds exile alone under a steady load for that long and prints its memory."""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

OUTSIDE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(OUTSIDE))  # exile, processes

import gateways
from gateways import Gateway
from processes import Failed, end_children_on_sigterm

# Both packages at once, as for the other benches, so that their dependencies are built with one
# set of features.
BUILD = ["cargo", "bench", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
BUILD += ["-p", "exile-engine", "-p", "exile-server", "--bench", "gateway"]

VOID = 0.9
"""Of the mock's own ceiling: from there on the load is measured, not the gateway."""

STEADY_RATE = 200
"""Requests per second, every tenth of them a stream of 1.3 s."""

FLAT = 5
"""Per cent."""


def programs(options) -> tuple[str, str]:
    """Paths of exile and of the bench; what is not given is built."""
    made = {"exile": options.exile, "gateway": options.bench}
    if not all(made.values()):
        built = subprocess.run(
            BUILD, cwd=OUTSIDE.parents[2], check=True, stdout=subprocess.PIPE, text=True
        )
        for line in map(json.loads, built.stdout.splitlines()):
            if line.get("executable") and not made.get(line["target"]["name"]):
                made[line["target"]["name"]] = line["executable"]
    return tuple(str(pathlib.Path(made[name]).resolve()) for name in ("exile", "gateway"))


@dataclasses.dataclass(frozen=True)
class Load:
    """The bench binary as a load, on the core of this process."""

    bench: str
    mock: str
    """The mock's URL."""
    short: bool
    """Only to see that everything works."""

    def run(self, gateway: Gateway, mode: str, direct: bool = True, **numbers: object) -> dict:
        """What that mode prints; nothing if it could not measure."""
        command = [self.bench, mode, "--via", gateway.url, "--key", gateway.key]
        command += ["--direct", self.mock] if direct else []
        for name, value in numbers.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        longest = 1200 + numbers.get("seconds", 0)
        try:
            ran = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, timeout=longest
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{gateway.name}, {mode}: {error}", file=sys.stderr)
            return {}
        return json.loads(ran.stdout)

    def all(self, gateway: Gateway) -> dict[str, dict]:
        """Everything that the table shows of a gateway, by mode."""
        part = 10 if self.short else 1
        time.sleep(3)  # what is still starting
        found = {"memory": {"idle": gateway.resident_mb()}}
        gateway.forget_peak()
        found["latency"] = self.run(gateway, "latency", model="plain", requests=1000 // part)
        found["throughput"] = self.run(
            gateway, "throughput", model="plain", connections=16, seconds=max(15 // part, 1)
        )
        found["first"] = self.run(gateway, "first", model="plain", requests=1000 // part)
        found["rested"] = self.run(gateway, "first", model="stream-2-5", requests=400 // part,
                                   warm_up=100 // part)
        found["streams"] = self.run(
            gateway, "streams", model="stream-64-20", streams=300, rounds=max(5 // part, 1)
        )
        found["memory"]["peak"] = gateway.resident_mb("VmHWM")
        return {mode: figures for mode, figures in found.items() if figures}


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of figure; every function gets what `Load.all` found of a gateway."""

    work: str
    aim: str
    show: Callable[[dict], str]
    beside: Callable[[dict], str] = lambda _: ""
    """The same without a gateway."""
    met: Callable[[dict], bool] | None = None
    void: Callable[[dict], bool] = lambda _: False


def pair(figures: dict, show_max: bool = False) -> str:
    """Median and 99th percentile, in milliseconds."""
    most = f", at most {number(figures['max'])}" if show_max else ""
    return f"{number(figures['p50'])} / {number(figures['p99'])} ms{most}"


def number(value: float | None) -> str:
    """Not more digits than a measurement can know."""
    return "—" if value is None else f"{float(f'{value:.3g}'):,.10g}"


def throughput(side: dict) -> str:
    """Answers per second, their times, and what went wrong."""
    wrong = f", {side['errors']:,} errors ({side['error'][:80]})" if side["errors"] else ""
    return f"{number(side['per_second'])}/s, {pair(side['times'])}{wrong}"


def late(side: dict) -> str:
    """Times, and what went wrong."""
    counts = {name: side[name] for name in ("twice", "disordered", "strange") if side[name]}
    wrong = "".join(f", {count:,} {name}" for name, count in counts.items())
    if side["broken"]:
        wrong += f", {side['broken']:,} streams broke ({side['error'][:80]})"
    return f"{pair(side['late'], True)}; {side['lost']:,} of {side['deltas']:,} lost{wrong}"


def added(figures: dict) -> str:
    """Both, and what went wrong."""
    errors = figures["errors"]["via"]
    return pair(figures["added"]) + (f", {errors:,} errors" if errors else "")


def within(figures: dict, p50: float, p99: float) -> bool:
    """An aim of an added time, in milliseconds."""
    took = figures["added"]
    return took["p50"] <= p50 and took["p99"] <= p99 and not figures["errors"]["via"]


def in_time(side: dict, p99: float) -> bool:
    """An aim of many streams: nothing is missing, and nothing is there that should not be."""
    wrong = ("lost", "twice", "disordered", "strange", "broken")
    return not any(side[name] for name in wrong) and side["late"]["p99"] <= p99


ROWS = [
    Row("added to an answer, one connection, p50 / p99", "≤ 0.3 / 1 ms",
        lambda found: added(found["latency"]), lambda found: pair(found["latency"]["direct"]),
        lambda found: within(found["latency"], 0.3, 1)),
    Row("answers, 16 connections; p50 / p99", "≥ 5,000/s, no error",
        lambda found: throughput(found["throughput"]["via"]),
        lambda found: throughput(found["throughput"]["direct"]),
        lambda found: found["throughput"]["via"]["per_second"] >= 5000
        and not found["throughput"]["via"]["errors"],
        lambda found: found["throughput"]["via"]["per_second"]
        >= VOID * found["throughput"]["direct"]["per_second"]),
    Row("added to the first token, p50 / p99", "p99 ≤ 1 ms",
        lambda found: added(found["first"]), lambda found: pair(found["first"]["direct"]),
        lambda found: within(found["first"], 1, 1)),
    Row("the same, each after 5 ms in which nothing happened", "",
        lambda found: added(found["rested"]), lambda found: pair(found["rested"]["direct"])),
    Row("300 streams, a delta every 20 ms, late by p50 / p99", "p99 ≤ 5 ms, none lost",
        lambda found: late(found["streams"]["via"]),
        lambda found: late(found["streams"]["direct"]),
        lambda found: in_time(found["streams"]["via"], 5)),
    Row("memory when idle", "", lambda found: f"{number(found['memory']['idle'])} MB"),
    Row("memory under all of this, peak", "≤ 64 MB",
        lambda found: f"{number(found['memory']['peak'])} MB",
        met=lambda found: found["memory"]["peak"] <= 64),
]


def cell(show: Callable[[dict], str], found: dict) -> str:
    """What could not be measured has no figures."""
    try:
        return show(found)
    except (KeyError, TypeError):
        return "not measured"


def verdict(row: Row, exile: dict) -> str:
    """Whether exile met the aim."""
    try:
        if row.void(exile):
            return "void: the load's own ceiling"
        return "" if row.met is None else "met" if row.met(exile) else "missed"
    except (KeyError, TypeError):
        return "not measured"


def version(venv: pathlib.Path) -> str:
    """Of LiteLLM in that environment."""
    found = venv.glob("lib/python*/site-packages/litellm-*.dist-info")
    return "".join(folder.stem.removeprefix("litellm-") for folder in found)


def table(names: list[str], exile: dict, litellm: dict) -> str:
    """In Markdown. What there is without a gateway was measured in exile's turn."""
    lines = [f"| what | without a gateway | {' | '.join(names)} | aim | |"]
    lines.append("|---|---|---|---|---|---|")
    for row in ROWS:
        cells = [row.work, cell(row.beside, exile), cell(row.show, exile)]
        voided = ", void" if verdict(row, litellm).startswith("void") else ""
        cells += [cell(row.show, litellm) + voided, row.aim, verdict(row, exile)]
        lines.append(f"| {' | '.join(text.replace('|', '¦') for text in cells)} |")
    return "\n".join(lines)


def compared(options, exile: str, load: Load, folder: pathlib.Path, core: int) -> int:
    """Both gateways, never at the same time."""

    def turns() -> Iterator[dict]:
        for gateway in (
            gateways.exile(exile, folder, load.mock, core, not options.no_quotas),
            gateways.litellm(options.venv, folder, load.mock, core),
        ):
            try:
                with gateway as serving:
                    yield load.all(serving)
            except (Failed, OSError) as error:
                print(error, file=sys.stderr)
                yield {}

    names = ["exile without quotas" if options.no_quotas else "exile"]
    names.append(f"LiteLLM {version(options.venv)}")
    text = table(names, *turns())
    print(text)
    return int("not measured" in text)


def steady(options, exile: str, load: Load, folder: pathlib.Path, core: int) -> int:
    """exile alone, for minutes."""
    seconds = int(options.minutes * 60)
    quotas = not options.no_quotas
    with gateways.exile(exile, folder, load.mock, core, quotas) as gateway:
        found = load.run(gateway, "steady", direct=False, model="plain", pid=gateway.pid,
                         rate=STEADY_RATE, seconds=seconds,
                         sample_seconds=10 if seconds >= 120 else 1)
    if not found or found["change_percent"] is None:
        print("The memory under a steady load could not be measured", file=sys.stderr)
        return 1
    early, last = (found[name] * 1024 / 1e6 for name in ("second_tenth_kib", "last_tenth_kib"))
    change, wrong = found["change_percent"], found["errors"]
    flat = abs(change) <= FLAT and not wrong
    print("| what | second tenth | last tenth | change | errors | aim | |")
    print("|---|---|---|---|---|---|---|")
    print(f"| memory, {options.minutes:g} min at {STEADY_RATE} requests/s | {number(early)} MB "
          f"| {number(last)} MB | {change:+.1f} % | {wrong:,} | ± {FLAT} % "
          f"| {'met' if flat else 'missed'} |")
    series = " ".join(number(kib * 1024 / 1e6) for _, kib in found["rss_kib"])
    print(f"\nMB, every {found['rss_kib'][1][0]} s: {series}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=pathlib.Path, help="holds LiteLLM's proxy")
    parser.add_argument("--exile", help="a release binary; built if there is none")
    parser.add_argument("--bench", help="the bench `gateway`; built if there is none")
    parser.add_argument("--no-quotas", action="store_true", help="exile counts no quotas")
    parser.add_argument("--minutes", type=float, help="exile alone, under a steady load")
    parser.add_argument("--short", action="store_true", help="only to see that it works")
    options = parser.parse_args()
    if not options.minutes and not options.venv:
        parser.error("--venv or --minutes is needed")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the gateway, one for the load")
    end_children_on_sigterm()
    exile, bench = programs(options)
    os.sched_setaffinity(0, {cores[1]})
    # On the disk that exile was built on: `/tmp` may be memory.
    with tempfile.TemporaryDirectory(dir=pathlib.Path(exile).parent) as name:
        folder = pathlib.Path(name)
        with gateways.mock(bench, folder) as url:
            load = Load(bench, url, options.short)
            measure = steady if options.minutes else compared
            return measure(options, exile, load, folder, cores[0])


if __name__ == "__main__":
    sys.exit(main())
