"""exile → LiteLLM's proxy → a scripted upstream: a server of the protocol that is not ours."""

import contextlib
import dataclasses
import urllib.request

import judge
import upstream
from exile import Exile, named
from judge import equal
from processes import Program, free_port

PROXY_KEY = "sk-judge"

PROXY_CONFIG = """
model_list:
  - model_name: scripted
    litellm_params:
      model: openai/{model}
      api_base: {url}
      api_key: {key}
general_settings: {{ master_key: {proxy_key} }}
litellm_settings: {{ num_retries: 0 }}
"""

EXILE_CONFIG = """
providers:
  litellm: {{ base_url: "http://127.0.0.1:{port}/v1", api_key: {proxy_key} }}
models:
  default: litellm/scripted
"""


@dataclasses.dataclass(frozen=True)
class Arranged:
    """What the checks talk to."""

    exile: Exile
    upstream: upstream.Upstream


@contextlib.contextmanager
def arrange(options, folder):
    """Starts all three, the last first."""
    with upstream.Upstream() as model:
        config = folder / "litellm.yaml"
        keys = {"key": upstream.KEY, "proxy_key": PROXY_KEY}
        config.write_text(PROXY_CONFIG.format(model=upstream.MODEL, url=model.url, **keys))
        port = free_port()
        command = [str(options.venv / "bin" / "litellm"), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        # Prices come from the package, not from the network.
        environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with Program("litellm", command, folder, **environment) as proxy:
            proxy.await_value("liveliness", 120, lambda: answers(port))
            settings = EXILE_CONFIG.format(port=port, proxy_key=PROXY_KEY)
            with Exile(options.exile, folder / "exile", settings) as exile:
                yield Arranged(exile, model)


def answers(port: int) -> bool:
    """Whether the proxy says that it is alive."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health/liveliness", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def rising(events) -> None:
    """Ids rise strictly and the run's end is the last event."""
    ids = [event.id for event in events]
    equal(ids, sorted(set(ids)))
    equal([event.name for event in events if event.name.startswith("run.")],
          ["run.started", "run.finished"])
    equal(events[-1].name, "run.finished")


def shown_text(events) -> str:
    """What the user watched being written."""
    return "".join(event.data["text"] for event in named(events, "message.delta"))


def a_chat_is_answered(arranged) -> None:
    conversation = arranged.exile.conversation(graph="chat")
    answer = arranged.exile.say(conversation, "Good morning")
    equal(answer["message"]["content"], "".join(upstream.GREETING))
    asked = arranged.upstream.asked[-1]
    equal(asked.authorization, f"Bearer {upstream.KEY}")
    equal(upstream.text_of(asked.body["messages"][-1]), "Good morning")


def the_second_turn_carries_the_first(arranged) -> None:
    conversation = arranged.exile.conversation(graph="chat")
    arranged.exile.say(conversation, "First")
    arranged.exile.say(conversation, "Second")
    spoken = [m for m in arranged.upstream.asked[-1].body["messages"] if m["role"] != "system"]
    equal([(m["role"], upstream.text_of(m)) for m in spoken],
          [("user", "First"), ("assistant", "".join(upstream.GREETING)), ("user", "Second")])


def a_streamed_chat_arrives_in_pieces(arranged) -> None:
    conversation = arranged.exile.conversation(graph="chat")
    events = arranged.exile.stream(conversation, "Good evening")
    rising(events)
    equal(shown_text(events), "".join(upstream.GREETING))
    if len(named(events, "message.delta")) < 2:
        raise AssertionError("the answer came in one piece")
    (finished,) = named(events, "message.finished")
    equal(finished.data["message"]["content"], "".join(upstream.GREETING))


def tools_are_called(arranged, script: str, requests: int) -> None:
    """A streamed loop over two tools, made of that many requests to the model."""
    before = len(arranged.upstream.asked)
    conversation = arranged.exile.conversation(graph="agent")
    events = arranged.exile.stream(conversation, f"Use your tools, {script}")
    rising(events)
    equal(sorted(e.data["tool"] for e in named(events, "tool.call")),
          ["calculator", "current_time"])
    contents = {e.data["tool"]: e.data["content"] for e in named(events, "tool.result")}
    equal(contents["calculator"], "391")
    assert "+08:00" in contents["current_time"], contents
    text = f"Results: {contents['calculator']} | {contents['current_time']}"
    equal(shown_text(events), text)
    asked = [a.body for a in arranged.upstream.asked[before:]]
    equal(len(asked), requests)
    offered = {tool["function"]["name"] for tool in asked[0]["tools"]}
    equal(offered, {"calculator", "current_time", "http_get"})
    # Every result answers the call of that id, and the calls are echoed before their results.
    spoken = asked[-1]["messages"]
    calls = [call["id"] for m in spoken for call in m.get("tool_calls") or []]
    results = [m["tool_call_id"] for m in spoken if m["role"] == "tool"]
    equal(calls, [upstream.CALCULATOR[0], upstream.CURRENT_TIME[0]])
    equal(results, calls)
    (finished,) = named(events, "run.finished")
    equal(finished.data["usage"]["input_tokens"], requests * upstream.USAGE["prompt_tokens"])
    equal(finished.data["usage"]["output_tokens"], requests * upstream.USAGE["completion_tokens"])


def a_streamed_loop_calls_two_tools_one_by_one(arranged) -> None:
    tools_are_called(arranged, "one by one", requests=3)


def two_tools_of_one_message_are_both_called(arranged) -> None:
    tools_are_called(arranged, "both at once", requests=2)


def a_refusal_ends_the_run_with_a_typed_error_and_the_next_message_works(arranged) -> None:
    conversation = arranged.exile.conversation(graph="chat")
    events = arranged.exile.stream(conversation, "Please refuse")
    equal(events[-1].name, "run.failed")
    error = events[-1].data["error"]
    assert error["code"].startswith("provider_"), error
    assert "litellm/scripted" in error["message"], error
    answer = arranged.exile.say(conversation, "And now?")
    equal(answer["message"]["content"], "".join(upstream.GREETING))


if __name__ == "__main__":
    judge.main(arrange, [
        a_chat_is_answered,
        the_second_turn_carries_the_first,
        a_streamed_chat_arrives_in_pieces,
        a_streamed_loop_calls_two_tools_one_by_one,
        two_tools_of_one_message_are_both_called,
        a_refusal_ends_the_run_with_a_typed_error_and_the_next_message_works,
    ])
