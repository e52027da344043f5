"""exile and LiteLLM's proxy before the same mock, each as one would serve with it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import urllib.request
from collections.abc import Iterator

from exile import Exile
from processes import Failed, Program, free_port
from through_litellm import answers

MODELS = ["plain", "stream-2-5", "stream-64-20"]
"""What the mock serves; both gateways know it by the same names."""

MOCK_KEY = "sk-mock"
PROXY_KEY = "sk-proxy"

QUOTAS = """
quotas: { user: { "*": { requests: 10000000/min, tokens: 100000000000/day, money: 1000000/day } } }
"""
"""Never reached, but counted: requests, tokens and money."""


@dataclasses.dataclass(frozen=True)
class Gateway:
    """One that serves."""

    name: str
    url: str
    """Before `/chat/completions`."""
    key: str
    pid: int
    """Of its process, which leads a group."""

    def resident_mb(self, field: str = "VmRSS") -> float:
        """`VmRSS`, or its peak as `VmHWM`, of every process of its group."""
        return sum(kib(pid, field) for pid in group(self.pid)) * 1024 / 1e6

    def forget_peak(self) -> None:
        """Peaks count from here on; where the kernel does not allow that, from the start."""
        for pid in group(self.pid):
            with contextlib.suppress(OSError):
                pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def kib(pid: int, field: str) -> int:
    """A field of the process's status; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


def group(leader: int) -> list[int]:
    """The processes of a group."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Programs that are started inside run on that core alone, as with `taskset`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def mock(bench: str, folder: pathlib.Path) -> Iterator[str]:
    """A mock that listens; its URL, before `/chat/completions`."""
    with Program("mock", [bench, "mock", "--port", "0"], folder) as program:
        program.await_value("its address", 10, lambda: program.text().endswith("\n"))
        yield f"http://{json.loads(program.text())['listening']}/v1"


@contextlib.contextmanager
def exile(
    binary: str, folder: pathlib.Path, upstream: str, core: int, quotas: bool
) -> Iterator[Gateway]:
    """In an empty home, with prices of every model, and quotas."""
    price = "prices: [{ currency: USD, input: 1, output: 2 }]"
    lines = ["providers:", f'  mock1: {{ base_url: "{upstream}", api_key: {MOCK_KEY} }}']
    lines += ["models:", "  default: mock1/plain"]
    lines += [f"  {model}: mock1/{model}" for model in MODELS]
    lines += ["catalogue:"] + [f"  mock1/{model}: {{ {price} }}" for model in MODELS]
    config = "\n".join(lines) + (QUOTAS if quotas else "\n")
    with on_core(core):
        program = Exile(binary, folder / "exile", config, EXILE_LOG="error")
    with program as server:
        key = (server.home / "local.key").read_text().strip()
        yield checked(Gateway("exile", f"{server.url}/v1", key, server.pid))


@contextlib.contextmanager
def litellm(
    venv: pathlib.Path, folder: pathlib.Path, upstream: str, core: int
) -> Iterator[Gateway]:
    """One worker for its one core; prices, a master key, and nothing that its documentation
    advises against in production. Without a database it has no quotas to count."""
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    connection = {"api_base": upstream, "api_key": MOCK_KEY} | prices
    settings = {
        "model_list": [
            {"model_name": model, "litellm_params": {"model": f"openai/{model}"} | connection}
            for model in MODELS
        ],
        "general_settings": {"master_key": PROXY_KEY},
        "litellm_settings": {"set_verbose": False, "json_logs": False, "num_retries": 0},
    }
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(settings))  # which is YAML as well
    port = free_port()
    command = [str(venv / "bin" / "litellm"), "--config", str(config), "--num_workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    # Prices come from the package, not from the network.
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with on_core(core):
        program = Program("litellm", command, folder, **environment)
    with program as proxy:
        proxy.await_value("liveliness", 180, lambda: answers(port))
        yield checked(Gateway("LiteLLM", f"http://127.0.0.1:{port}/v1", PROXY_KEY, proxy.pid))


def checked(gateway: Gateway) -> Gateway:
    """Whether it hands on what the mock says."""
    body = {"model": "plain", "messages": [{"role": "user", "content": "Good morning."}]}
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    url = f"{gateway.url}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            said = json.load(answer)
    except OSError as error:
        raise Failed(f"{gateway.name}: {error}") from error
    if said["choices"][0]["message"]["content"] != "Good morning.":
        raise Failed(f"{gateway.name} answered {said}")
    if said["usage"]["total_tokens"] != 164:
        raise Failed(f"{gateway.name} counted {said['usage']}")
    return gateway
