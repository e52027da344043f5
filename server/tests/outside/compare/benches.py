"""exile's own benches: builds them once, runs one at a time, reads what they measured."""

import functools
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]

# Both packages at once, so that their dependencies are built with one set of features.
BUILD = ["cargo", "bench", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
BUILD += ["-p", "exile-engine", "-p", "exile-server"]
BUILD += ["--bench", "engine", "--bench", "journal", "--bench", "bytes"]


@functools.cache
def programs() -> dict[str, str]:
    """Paths of the benches, and of the binary that is built beside them, by name."""
    built = subprocess.run(BUILD, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    made = map(json.loads, built.stdout.splitlines())
    return {m["target"]["name"]: m["executable"] for m in made if m.get("executable")}


def samples(bench: str, name: str) -> list[float]:
    """Runs the bench `group/function`; seconds per iteration of each of its samples."""
    with tempfile.TemporaryDirectory() as folder:
        command = [programs()[bench], "--bench", "--exact", name]
        environment = os.environ | {"CRITERION_HOME": folder}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        text = (pathlib.Path(folder) / name / "new" / "sample.json").read_text()
    sample = json.loads(text)
    return [time / count / 1e9 for time, count in zip(sample["times"], sample["iters"])]


def time(bench: str, name: str, per: int = 1) -> dict:
    """Seconds of one of `per` equal parts of an iteration."""
    taken = samples(bench, name)
    return {"median": statistics.median(taken) / per, "best": min(taken) / per}


def rate(bench: str, name: str, pieces: int) -> dict:
    """Pieces per second, `pieces` of them in an iteration."""
    taken = samples(bench, name)
    return {"median": pieces / statistics.median(taken), "best": pieces / min(taken)}


@functools.cache
def sizes() -> dict[str, float]:
    """Bytes on disk, by the figure's name."""
    ran = subprocess.run([programs()["bytes"]], check=True, stdout=subprocess.PIPE, text=True)
    return {line["figure"]: line["value"] for line in map(json.loads, ran.stdout.splitlines())}


def size(figure: str) -> dict:
    """Bytes on disk."""
    return {"median": sizes()[figure], "best": sizes()[figure]}
