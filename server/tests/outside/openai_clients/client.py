"""One program that drives a client: it is asked by lines of JSON and answers with such lines."""

import json
import pathlib
import subprocess
import threading

from processes import Failed, clean_environment


class Client:
    """Runs while the `with` lasts; its complaints are in a file."""

    def __init__(self, name: str, command: list[str], folder: pathlib.Path, url: str, key: str):
        self.name = name
        self._log = folder / f"{name}.log"
        self._process = subprocess.Popen(
            command,
            env=clean_environment(CLIENT_URL=f"{url}/v1", CLIENT_KEY=key),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("wb"),
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def ask(self, case: str, **arguments) -> dict:
        """What the client saw; a client that says nothing for 30 s is ended."""
        late = threading.Timer(30, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(json.dumps({"case": case, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            raise Failed(f"{self.name} ended\n{self._log.read_text(errors='replace')[-3000:]}")
        return json.loads(line)

    def saw(self, case: str, **arguments) -> dict:
        """What the client saw of something that works."""
        seen = self.ask(case, **arguments)
        if "error" in seen:
            raise AssertionError(seen)
        return seen
