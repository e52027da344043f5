"""exile → OTLP → Arize Phoenix: the span tree as a receiver that is not ours shows it."""

import contextlib
import dataclasses
import json
import urllib.request

import judge
import upstream
from exile import Exile
from judge import equal
from processes import Program, await_value, free_port

EXILE_CONFIG = """
providers:
  scripted: {{ base_url: "{url}", api_key: {key} }}
models:
  default: scripted/{model}
"""

SECRET_QUESTION = "Use your tools, one by one, about the canary-4711"


@dataclasses.dataclass(frozen=True)
class Arranged:
    """What the checks look at: the spans of one run, as Phoenix has them."""

    spans: list[dict]

    def named(self, name: str) -> list[dict]:
        """The spans of that name."""
        return [span for span in self.spans if span["name"] == name]

    def parent(self, span: dict) -> dict | None:
        """The span above."""
        above = (s for s in self.spans if s["context"]["span_id"] == span["parent_id"])
        return next(above, None)

    def top(self, span: dict) -> dict:
        """The topmost span above, or the span itself."""
        while above := self.parent(span):
            span = above
        return span


@contextlib.contextmanager
def arrange(options, folder):
    """Runs one conversation with two tool calls and waits until Phoenix has its root span."""
    port = free_port()
    environment = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command = [str(options.venv / "bin" / "phoenix"), "serve"]
    url = f"http://127.0.0.1:{port}"
    with upstream.Upstream() as model, Program("phoenix", command, folder, **environment) as phoenix:
        phoenix.await_value("health", 180, lambda: fetch(f"{url}/healthz") is not None)
        config = EXILE_CONFIG.format(url=model.url, key=upstream.KEY, model=upstream.MODEL)
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        with Exile(options.exile, folder / "exile", config, **traces) as exile:
            exile.say(exile.conversation(graph="agent"), SECRET_QUESTION)
            spans = await_value("the run's root span", 60, lambda: finished(url))
        yield Arranged(spans)


def fetch(url: str) -> str | None:
    """The body of a page that answers 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return None


def finished(url: str) -> list[dict] | None:
    """The spans of the run's trace, once its root is there: children are sent before it."""
    body = fetch(f"{url}/v1/projects/default/spans?limit=500")
    spans = json.loads(body)["data"] if body else []
    roots = [s for s in spans if s["name"].startswith("invoke_workflow")]
    if not roots:
        return None
    trace = roots[0]["context"]["trace_id"]
    return [s for s in spans if s["context"]["trace_id"] == trace]


def one_trace_holds_the_whole_run(arranged) -> None:
    (root,) = arranged.named("invoke_workflow agent")
    attributes = root["attributes"]
    equal(attributes["gen_ai.operation.name"], "invoke_workflow")
    equal(attributes["gen_ai.workflow.name"], "agent")
    # Above the run there may be the HTTP request that asked for it, and nothing hangs loose.
    equal({arranged.top(s)["context"]["span_id"] for s in arranged.spans},
          {arranged.top(root)["context"]["span_id"]})


def calls_hang_below_a_node_of_the_run(arranged) -> None:
    chats = arranged.named(f"chat {upstream.MODEL}")
    tools = [s for s in arranged.spans if s["name"].startswith("execute_tool ")]
    equal(len(chats), 3)
    equal(sorted(s["name"] for s in tools), ["execute_tool calculator", "execute_tool current_time"])
    (root,) = arranged.named("invoke_workflow agent")
    for span in chats + tools:
        above, names = arranged.parent(span), []
        while above is not None and above is not root:
            names.append(above["name"])
            above = arranged.parent(above)
        assert above is root, f"{span['name']} is not below the run"
        assert names and all(n.startswith("node ") for n in names), (span["name"], names)


def phoenix_knows_models_and_tools_by_their_kind(arranged) -> None:
    kinds = {s["name"]: s["span_kind"] for s in arranged.spans}
    equal(kinds[f"chat {upstream.MODEL}"], "LLM")
    equal(kinds["execute_tool calculator"], "TOOL")
    equal(kinds["execute_tool current_time"], "TOOL")


def a_chat_span_names_provider_model_and_tokens(arranged) -> None:
    attributes = arranged.named(f"chat {upstream.MODEL}")[0]["attributes"]
    expected = {
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": upstream.MODEL,
        "gen_ai.usage.input_tokens": upstream.USAGE["prompt_tokens"],
        "gen_ai.usage.output_tokens": upstream.USAGE["completion_tokens"],
    }
    equal({name: attributes.get(name) for name in expected}, expected)


def no_content_and_no_key_is_exported(arranged) -> None:
    text = json.dumps(arranged.spans)
    for secret in ("canary-4711", upstream.KEY, "17 * 23"):
        assert secret not in text, f"{secret} was exported"


if __name__ == "__main__":
    judge.main(arrange, [
        one_trace_holds_the_whole_run,
        calls_hang_below_a_node_of_the_run,
        phoenix_knows_models_and_tools_by_their_kind,
        a_chat_span_names_provider_model_and_tokens,
        no_content_and_no_key_is_exported,
    ])
