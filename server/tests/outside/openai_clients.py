"""OpenAI's clients, unmodified → a recorder → exile's `/v1` → a scripted upstream.

Every body that exile sends meanwhile is held against OpenAI's published OpenAPI document."""

import collections
import contextlib
import dataclasses
import json
import pathlib
import shutil
import sys

FOLDER = pathlib.Path(__file__).with_suffix("")
sys.path.insert(0, str(FOLDER))

import judge
import published
import upstream
from client import Client
from exile import Exile
from judge import equal
from lab import PLAN, Lab, vector
from processes import await_value
from recorder import Exchange, Recorder

PROGRAMS = {
    "openai (PyPI)": "sync_openai.py",
    "openai (PyPI, async)": "async_openai.py",
    "langchain-openai (PyPI)": "chat_openai.py",
    "openai (npm)": "node_openai.mjs",
    "ai (npm)": "ai_sdk.mjs",
}

# Every failure is exile's own to tell, so it must not hide one behind a second try.
CONFIG = """
providers:
  lab: {{ base_url: "{url}", retries: 0 }}
models:
  default: lab/model-a
"""

MODEL = "lab/model-a"
GREETING = "".join(upstream.GREETING)
USAGE = {
    "input": upstream.USAGE["prompt_tokens"],
    "output": upstream.USAGE["completion_tokens"],
}
RESULTS = {"calculator": "391", "current_time": "2026-01-02T03:04:05+08:00"}
CALLS = [upstream.CALCULATOR, upstream.CURRENT_TIME]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"The {name}.",
            "parameters": {
                "type": "object",
                "properties": {parameter: {"type": "string"} for parameter in arguments},
                "required": list(arguments),
            },
        },
    }
    for _, name, arguments in CALLS
]


@dataclasses.dataclass(frozen=True)
class Arranged:
    """What the checks talk to."""

    lab: Lab
    recorder: Recorder
    clients: dict[str, Client]


@contextlib.contextmanager
def arrange(options, folder):
    """Starts the model, exile, the recorder, then the clients."""
    with contextlib.ExitStack() as running:
        lab = running.enter_context(Lab())
        settings = CONFIG.format(url=lab.url)
        exile = running.enter_context(Exile(options.exile, folder / "exile", settings))
        recorder = running.enter_context(Recorder(exile.url))
        key = (exile.home / "local.key").read_text().strip()
        scripts = beside_packages(options.venv, folder)
        clients = {}
        for name, program in PROGRAMS.items():
            command = [str(options.venv / "bin" / "python"), str(FOLDER / program)]
            if program.endswith(".mjs"):
                command = ["node", str(scripts / program)]
            client = Client(pathlib.Path(program).stem, command, folder, recorder.url, key)
            clients[name] = running.enter_context(client)
        yield Arranged(lab, recorder, clients)


def beside_packages(venv: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The scripts where Node finds the packages: it looks beside a module and nowhere else."""
    scripts = folder / "node"
    scripts.mkdir()
    for script in FOLDER.glob("*.mjs"):
        shutil.copy(script, scripts)
    (scripts / "node_modules").symlink_to((venv / "node" / "node_modules").resolve())
    return scripts


def failing(client: Client) -> str:
    """A model that only this client sees fail: one that fails often is left alone for a while."""
    return f"lab/failing-{client.name.replace('_', '-')}"


def a_chat_is_answered(arranged, client) -> None:
    seen = client.saw("chat", model=MODEL, text="Good morning")
    equal((seen["content"], seen["finish"], seen["usage"]), (GREETING, "stop", USAGE))
    body = arranged.lab.asked[-1].body
    equal(body["model"], "model-a")
    equal([(m["role"], upstream.text_of(m)) for m in body["messages"]],
          [("user", "Good morning")])
    equal((body["temperature"], body["max_tokens"]), (0.5, 64))


def a_streamed_chat_arrives_in_pieces(arranged, client) -> None:
    is_streamed(client, MODEL, "Good evening", GREETING, USAGE)


def is_streamed(client, model: str, text: str, answer: str, usage: dict) -> None:
    """The answer arrives in pieces and ends with a reason and the usage."""
    seen = client.saw("stream", model=model, text=text)
    equal("".join(seen["pieces"]), answer)
    assert len(seen["pieces"]) >= 2, seen
    equal((seen["finish"], seen["usage"]), ("stop", usage))


def an_alias_is_a_model(arranged, client) -> None:
    equal(client.saw("chat", model="default", text="Hello")["content"], GREETING)
    equal(arranged.lab.asked[-1].body["model"], "model-a")


def a_skill_is_a_model(arranged, client) -> None:
    # Its own settings: a skill says them itself, and a caller's are refused by name.
    is_streamed(client, "assistant", "Hello", GREETING, USAGE)
    first = arranged.lab.asked[-1].body["messages"][0]
    equal(first["role"], "system")
    assert "careful assistant" in upstream.text_of(first), first


def a_graph_is_a_model(arranged, client) -> None:
    is_streamed(client, "chat", "Good evening", GREETING, USAGE)


def a_graph_calls_its_own_tools(arranged, client) -> None:
    seen = client.saw("stream", model="agent", text="Use your tools, both at once")
    text = "".join(seen["pieces"])
    assert text.startswith("Results: 391 | ") and "+08:00" in text, text
    assert len(seen["pieces"]) >= 2, seen
    # Both requests of the run.
    equal(seen["usage"], {side: 2 * tokens for side, tokens in USAGE.items()})
    equal(seen["finish"], "stop")


def two_tools_are_called_at_once(arranged, client) -> None:
    tools_are_called(arranged, client, streamed=False)


def two_tools_are_called_at_once_in_a_stream(arranged, client) -> None:
    tools_are_called(arranged, client, streamed=True)


def tools_are_called(arranged, client, streamed: bool) -> None:
    """The caller gets both calls, and the model gets the caller's results."""
    before = len(arranged.lab.asked)
    seen = client.saw("tools", model=MODEL, text="Use your tools, both at once", tools=TOOLS,
                      results=RESULTS, streamed=streamed)
    equal([(name, json.loads(arguments)) for _, name, arguments in seen["calls"]],
          [(name, arguments) for _, name, arguments in CALLS])
    equal((seen["finish"], seen["content"]),
          ("tool_calls", "Results: " + " | ".join(RESULTS.values())))
    first, second = [asked.body for asked in arranged.lab.asked[before:]]
    equal([tool["function"]["name"] for tool in first["tools"]], list(RESULTS))
    equal([tool["function"]["parameters"]["properties"] for tool in first["tools"]],
          [tool["function"]["parameters"]["properties"] for tool in TOOLS])
    called = [call["id"] for m in second["messages"] for call in m.get("tool_calls") or []]
    answered = [m["tool_call_id"] for m in second["messages"] if m["role"] == "tool"]
    equal(len(set(called)), 2)
    equal(answered, called)


def an_answer_is_held_to_a_schema(arranged, client) -> None:
    equal(client.saw("structured", model=MODEL, text="A plan as JSON")["parsed"], PLAN)
    # Whichever way exile tells this model, it tells it.
    assert '"days' in json.dumps(arranged.lab.asked[-1].body).replace("\\", ""), "no schema"


def embeddings_are_the_models(arranged, client) -> None:
    texts = ["one", "two and three"]
    seen = client.saw("embeddings", model="lab/embed-a", texts=texts)
    equal(seen["vectors"], [vector(text) for text in texts])
    body = arranged.lab.embedded[-1]
    equal((body["model"], body["input"]), ("embed-a", texts))


def models_are_listed(arranged, client) -> None:
    missing = {"default", "chat", "agent", "assistant"} - set(client.saw("models")["ids"])
    equal(missing, set())


def fails(client, kind: str, status: int, code: str | None = None, **arguments) -> None:
    """The client raises that kind, for that status."""
    error = client.ask("chat", **arguments).get("error")
    assert error, "no error"
    equal(error["status"], status)
    # `ai` has one kind for all of them.
    assert {kind, "APICallError"} & set(error["kinds"]), error
    if code:
        equal(error["code"], code)


def a_wrong_key_is_refused(arranged, client) -> None:
    before = len(arranged.lab.asked)
    fails(client, "AuthenticationError", 401, model=MODEL, text="Hello", key="wrong")
    equal(len(arranged.lab.asked), before)


def an_unknown_model_is_not_found(arranged, client) -> None:
    for model in ("no-such-model", "nobody/model-a"):
        fails(client, "NotFoundError", 404, "model_not_found", model=model, text="Hello")


def a_request_without_messages_is_refused(arranged, client) -> None:
    fails(client, "BadRequestError", 400, model=MODEL, text="")


def a_failing_model_is_a_bad_gateway(arranged, client) -> None:
    fails(client, "InternalServerError", 502, model=failing(client), text="fail with 500")


def a_busy_model_is_a_rate_limit(arranged, client) -> None:
    fails(client, "RateLimitError", 429, model=failing(client), text="fail with 429")


def a_model_that_breaks_off_fails_the_stream(arranged, client) -> None:
    fails_in_the_stream(client, "break off")


def a_model_that_reports_an_error_fails_the_stream(arranged, client) -> None:
    fails_in_the_stream(client, "report an error")


def fails_in_the_stream(client, script: str) -> None:
    """What was said arrives, then the client raises what it raises for an error it was told."""
    seen = client.ask("stream", model=failing(client), text=script)
    equal(seen["pieces"], upstream.GREETING[:2])
    assert {"APIError", "StreamProviderError"} & set(seen.get("error", {}).get("kinds", [])), seen


def whoever_leaves_a_stream_leaves_the_model(arranged, client) -> None:
    seen = leaves(arranged, client, "leave_stream", "go on forever")
    assert len(seen["pieces"]) >= 2, seen


def whoever_leaves_before_the_answer_leaves_the_model(arranged, client) -> None:
    leaves(arranged, client, "leave", "stay silent")


def leaves(arranged, client, case: str, script: str) -> dict:
    """The model sees the connection close within a second."""
    left = arranged.lab.left
    before = len(left)
    seen = client.saw(case, model=MODEL, text=script)
    await_value("the model is left", 10, lambda: len(left) > before)
    late = left[before] - seen["left"]
    assert late < 1, f"after {late:.3f} s"
    return seen


CASES = [
    a_chat_is_answered,
    a_streamed_chat_arrives_in_pieces,
    an_alias_is_a_model,
    a_skill_is_a_model,
    a_graph_is_a_model,
    a_graph_calls_its_own_tools,
    two_tools_are_called_at_once,
    two_tools_are_called_at_once_in_a_stream,
    an_answer_is_held_to_a_schema,
    embeddings_are_the_models,
    models_are_listed,
    a_wrong_key_is_refused,
    an_unknown_model_is_not_found,
    a_request_without_messages_is_refused,
    a_failing_model_is_a_bad_gateway,
    a_busy_model_is_a_rate_limit,
    a_model_that_breaks_off_fails_the_stream,
    a_model_that_reports_an_error_fails_the_stream,
    whoever_leaves_a_stream_leaves_the_model,
    whoever_leaves_before_the_answer_leaves_the_model,
]

# What a client has no way to ask: `ai` itself refuses a request without messages.
WITHOUT = {
    "langchain-openai (PyPI)": [models_are_listed],
    "ai (npm)": [models_are_listed, a_request_without_messages_is_refused],
}


def by(name: str, case):
    """The check that this client is served."""

    def check(arranged) -> None:
        case(arranged, arranged.clients[name])

    check.__name__ = f"{name}: {case.__name__}"
    return check


def whole_streams(exchanges: list[Exchange]) -> list[Exchange]:
    """The streams that nobody left and that did not fail."""
    scripts = ("go on forever", "break off", "report an error")
    return [e for e in exchanges
            if e.streamed and not any(script in json.dumps(e.asked) for script in scripts)]


def every_stream_ends_with_done(arranged) -> None:
    streams = whole_streams(arranged.recorder.exchanges())
    assert streams, "no streams"
    equal({stream.events()[-1] for stream in streams}, {"[DONE]"})


def every_stream_has_one_id_and_usage_only_where_it_was_asked_for(arranged) -> None:
    for stream in whole_streams(arranged.recorder.exchanges()):
        chunks = [json.loads(data) for data in stream.events()[:-1]]
        equal(len({chunk["id"] for chunk in chunks}), 1)
        asked = (stream.asked.get("stream_options") or {}).get("include_usage", False)
        with_usage = [chunk for chunk in chunks if chunk.get("usage")]
        equal([chunk["choices"] for chunk in with_usage], [[]] if asked else [])


def embeddings_come_in_the_form_that_was_asked_for(arranged) -> None:
    forms = collections.defaultdict(set)
    for exchange in arranged.recorder.exchanges():
        if exchange.path.endswith("/embeddings") and exchange.status == 200:
            form = exchange.asked.get("encoding_format", "float")
            data = json.loads(exchange.body)["data"]
            forms[form] |= {type(item["embedding"]) for item in data}
    equal(dict(forms), {"base64": {str}, "float": {list}})


def fits(document: published.Published, schema: str):
    """The check that every body of the kind is what OpenAI publishes."""

    def check(arranged) -> None:
        found, complaints = 0, collections.Counter()
        for exchange in arranged.recorder.exchanges():
            for name, body in published.bodies(exchange):
                if name == schema:
                    found += 1
                    complaints.update(document.complaints(schema, body))
        assert found, "no such body was sent"
        if complaints:
            raise AssertionError(f"of {found}: {complaints.most_common(8)}")

    check.__name__ = f"every body fits OpenAI's {schema}"
    return check


def checks() -> list:
    """Each case by each client, then what the recorder kept of all of them."""
    served = [by(name, case)
              for name in PROGRAMS
              for case in CASES
              if case not in WITHOUT.get(name, [])]
    kept = [every_stream_ends_with_done,
            every_stream_has_one_id_and_usage_only_where_it_was_asked_for,
            embeddings_come_in_the_form_that_was_asked_for]
    openapi = published.document()
    if openapi is None:
        print(f"skip {published.FILE}: not in {published.BESIDE}, and EXILE_DATA is not set")
        return served + kept
    document = published.Published(openapi)
    schemas = (published.CHAT, published.CHUNK, published.EMBEDDINGS, published.MODELS,
               published.ERROR)
    return served + kept + [fits(document, schema) for schema in schemas]


if __name__ == "__main__":
    judge.main(arrange, checks())
