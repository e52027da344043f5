"""Programs that a judge starts, waits for and always ends, by their own process group."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time


class Failed(Exception):
    """A program did not come up, or something awaited did not happen."""


def free_port() -> int:
    """A loopback port that was free a moment ago, for programs that cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_value(what: str, seconds: float, probe):
    """Polls until `probe()` gives something true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := probe():
            return value
        time.sleep(0.002)
    raise Failed(f"{what}: not within {seconds:.0f} s")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without keys, proxies and settings that would change a result."""
    foreign = ("EXILE_", "OTEL_", "LITELLM_", "PHOENIX_")
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith("_API_KEY")
        and not name.lower().endswith("_proxy")
        and not name.startswith(foreign)
    }
    return ours | extra


class Program:
    """One program in a process group of its own, its output in a file."""

    def __init__(self, name: str, command: list[str], folder: pathlib.Path, **environment: str):
        self.name = name
        self.output = folder / f"{name}.log"
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=self.output.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")

    def await_value(self, what: str, seconds: float, probe):
        """Like the function of that name; shows the output if the program ends meanwhile."""

        def alive():
            if self._process.poll() is not None:
                raise Failed(f"{self.name} ended with {self._process.returncode}")
            return probe()

        try:
            return await_value(f"{self.name}: {what}", seconds, alive)
        except Failed:
            print(self.text()[-4000:], file=sys.stderr)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sign)
            except ProcessLookupError:
                pass
            try:
                self._process.wait(15)
                return
            except subprocess.TimeoutExpired:
                continue


def end_children_on_sigterm() -> None:
    """Makes SIGTERM unwind the stack, so that every `with` ends its program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
