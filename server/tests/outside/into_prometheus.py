"""exile → /metrics → promtool and Prometheus: figures against what a scripted model told, and every
expression of the example dashboard over them."""

import argparse
import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

FOLDER = pathlib.Path(__file__).with_suffix("")
sys.path.insert(0, str(FOLDER))

from dashboard import EXAMPLES, Dashboard
from exile import REPOSITORY, Exile
from exposition import (
    AGENT,
    CHUNK,
    COST,
    DURATION,
    FIRST_CHUNK,
    HTTP,
    INFERENCE,
    METRICS,
    REFUSALS,
    RUN,
    TOOL,
    Figures,
)
from judge import equal, passes
from model import PAUSE, TOKENS, Model, Told, cost
from processes import Program, await_value, end_children_on_sigterm, free_port
from prometheus import Prometheus
from traffic import PROVIDER, SECRET_WORD, Traffic
from web import Answer, fetch

# Days begin at midnight UTC, and quotas are of a day, so that no minute ends in between.
CONFIG = """
timezone: UTC
currency: {{ unit: USD }}
providers:
  lab: {{ base_url: "{url}", retries: 1 }}
models:
  default: lab/steady
catalogue:
  lab/*: {{ prices: [{{ currency: USD, input: 2.5, cached: 0.3, cache_write: 3.75, output: 10 }}] }}
  lab/down: {{ context: 1000 }}
quotas:
  key: {{ "*": {{ requests: 1000/day }} }}
  user: {{ poor: {{ tokens: 1/day }} }}
  model: {{ lab/costly: {{ money: 0.000001/day }} }}
"""

@dataclasses.dataclass(frozen=True)
class Arranged:
    """What the checks look at."""

    options: argparse.Namespace
    folder: pathlib.Path
    exile: Exile
    traffic: Traffic
    prometheus: Prometheus
    # After one round, and after all.
    earlier: Answer
    page: Answer
    figures: Figures

    @property
    def told(self) -> list[Told]:
        """Every request that the model got."""
        return self.traffic.model.told

    @property
    def answered(self) -> list[Told]:
        """Those that it answered."""
        return [told for told in self.told if told.usage]

    def by_call(self) -> dict[tuple[str, str], list[Told]]:
        """Answers by model and graph."""
        groups = collections.defaultdict(list)
        for told in self.answered:
            groups[told.model, told.graph].append(told)
        return groups


@contextlib.contextmanager
def arrange(options, folder):
    """One round of everything, a Prometheus that reads it, and another round, so that there are
    rates."""
    with contextlib.ExitStack() as running:
        model = running.enter_context(Model())
        settings = CONFIG.format(url=model.url)
        exile = running.enter_context(Exile(options.exile, folder / "exile", settings))
        traffic = Traffic(exile, model)
        traffic.round()
        earlier = traffic.metrics()
        (folder / "scraper.key").write_text(traffic.keys["scraper"] + "\n")
        (folder / "prometheus.yml").write_text(adapted(exile.url.removeprefix("http://")))
        port = free_port()
        command = [options.prometheus, f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'tsdb'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        program = running.enter_context(Program("prometheus", command, folder))
        prometheus = Prometheus(port)
        program.await_value("readiness", 30, prometheus.is_ready)
        program.await_value("first scrapes", 20, lambda: prometheus.scrapes() >= 2)
        traffic.round()
        page = traffic.metrics()
        seen = prometheus.scrapes()
        await_value("later scrapes", 20, lambda: prometheus.scrapes() >= seen + 3)
        figures = Figures(page.text)
        yield Arranged(options, folder, exile, traffic, prometheus, earlier, page, figures)


def adapted(target: str) -> str:
    """The example for this exile: another address, another key, more often."""
    text = (EXAMPLES / "prometheus.yml").read_text()
    changes = [
        (r"scrape_interval: \S+", "scrape_interval: 1s"),
        (r"credentials_file: \S+", "credentials_file: scraper.key"),
        (r"targets: \[.*\]", f'targets: ["{target}"]'),
    ]
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        equal((pattern, count), (pattern, 1))
    return text


def near(what, got: float, expected: float, tolerance: float = 1e-9) -> None:
    """Says both sides when they differ by more than rounding."""
    if not abs(got - expected) <= tolerance:
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


def they_are_text_as_prometheus_reads_it(arranged) -> None:
    equal(arranged.page.status, 200)
    kind = arranged.page.content_type.replace(" ", "").lower()
    assert kind.startswith("text/plain;version=0.0.4"), arranged.page.content_type


def nobody_reads_them_without_a_key(arranged) -> None:
    equal(fetch(f"{arranged.exile.url}/metrics").status, 401)
    equal(fetch(f"{arranged.exile.url}/metrics", "no-key-of-exile").status, 401)


def a_plain_users_key_does_not_read_them(arranged) -> None:
    equal(fetch(f"{arranged.exile.url}/metrics", arranged.traffic.keys["plain"]).status, 403)


def a_plain_users_key_with_the_scope_metrics_does(arranged) -> None:
    equal(fetch(f"{arranged.exile.url}/metrics", arranged.traffic.keys["scraper"]).status, 200)


def promtool_has_nothing_to_say(arranged) -> None:
    for page in (arranged.earlier, arranged.page):
        command = [arranged.options.promtool, "check", "metrics"]
        done = subprocess.run(command, input=page.text, capture_output=True, text=True, timeout=60)
        equal((done.returncode, done.stdout, done.stderr), (0, "", ""))


def every_metric_is_there_with_its_type_and_its_labels(arranged) -> None:
    figures = arranged.figures
    seen = collections.defaultdict(set)
    for name, labels, _ in figures.samples:
        seen[figures.metric(name)].add(frozenset(labels) - {"le"})
    got = {name: (figures.types.get(name), seen[name]) for name in METRICS}
    equal(got, {name: (kind, {frozenset(labels)}) for name, (kind, labels) in METRICS.items()})


def every_histogram_adds_up(arranged) -> None:
    figures = arranged.figures
    series = collections.defaultdict(lambda: {"_bucket": []})
    for name, labels, value in figures.samples:
        metric = figures.metric(name)
        if figures.types.get(metric) != "histogram":
            continue
        key = metric, tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        part = name.removeprefix(metric)
        if part == "_bucket":
            series[key][part].append((float(labels["le"]), value))
        else:
            series[key][part] = value
    assert series, "there is none"
    for key, parts in series.items():
        bounds, counts = zip(*parts["_bucket"], strict=True)
        equal((key, list(bounds)), (key, sorted(set(bounds))))
        equal((key, list(counts)), (key, sorted(counts)))
        equal((key, bounds[-1], counts[-1]), (key, math.inf, parts["_count"]))
        assert parts["_sum"] >= 0 and parts["_count"] > 0, (key, parts)


def nothing_ever_falls(arranged) -> None:
    samples = arranged.figures.samples
    later = {(name, tuple(sorted(labels.items()))): value for name, labels, value in samples}
    figures = Figures(arranged.earlier.text)
    for name, labels, value in figures.samples:
        if figures.types.get(figures.metric(name)) in ("counter", "histogram"):
            key = name, tuple(sorted(labels.items()))
            assert later.get(key, -1) >= value, (key, value, later.get(key))


def every_attempt_is_counted_once(arranged) -> None:
    expected = collections.Counter(
        (told.model, told.graph, told.usage is None) for told in arranged.told
    )
    got = collections.Counter()
    for name, labels, value in arranged.figures.samples:
        if name == DURATION + "_count":
            equal((labels["gen_ai_operation_name"], labels["gen_ai_provider_name"]),
                  ("chat", PROVIDER))
            model, graph = labels["gen_ai_request_model"], labels["gen_ai_workflow_name"]
            got[model, graph, labels["error_type"] != ""] += value
    # That the outage was tried again, and that what a quota refused was not sent.
    equal((expected["down", "", True], expected["costly", "", False]), (4, 1))
    equal(got, expected)


def attempts_take_as_long_as_they_took(arranged) -> None:
    figures, told = arranged.figures, arranged.told
    took = figures.total(DURATION + "_sum")
    least = PAUSE * sum(t.pieces for t in told)
    assert least <= took <= arranged.traffic.seconds, (least, took, arranged.traffic.seconds)
    assert figures.total(DURATION + "_sum", error_type="") < took, "failures took no time"


def the_first_chunk_and_those_after_it_are_timed(arranged) -> None:
    figures = arranged.figures
    texts = sum(told.pieces > 0 for told in arranged.answered)
    for name in (FIRST_CHUNK, CHUNK):
        count, took = figures.total(name + "_count"), figures.total(name + "_sum")
        # Whether a call of a tool is a chunk is exile's to say.
        assert texts <= count <= len(arranged.answered), (name, texts, count)
        assert PAUSE / 2 <= took / count <= 1, (name, took / count)
    whole = figures.total(DURATION + "_sum", error_type="")
    assert figures.total(FIRST_CHUNK + "_sum") < whole, "the first chunk took longer than all"


def tokens_are_those_that_the_model_told(arranged) -> None:
    figures = arranged.figures
    for kind in TOKENS:
        name = f"{INFERENCE}usage_{kind}_tokens_total"
        for (model, graph), answers in arranged.by_call().items():
            labels = {"gen_ai_request_model": model, "gen_ai_workflow_name": graph}
            expected = sum(told.usage[kind] for told in answers)
            near((kind, model, graph), figures.total(name, **labels), expected)
        equal(figures.total(name), sum(told.usage[kind] for told in arranged.answered))
        equal(figures.total(name, gen_ai_token_modality="text"), figures.total(name))


def tokens_of_single_calls_add_up_to_the_same(arranged) -> None:
    for kind in ("input", "output"):
        name = f"{INFERENCE}operation_{kind}_tokens"
        equal(arranged.figures.total(name + "_count"), len(arranged.answered))
        expected = sum(told.usage[kind] for told in arranged.answered)
        equal(arranged.figures.total(name + "_sum"), expected)


def cost_is_price_times_tokens(arranged) -> None:
    figures = arranged.figures
    for (model, graph), answers in arranged.by_call().items():
        labels = {"gen_ai_request_model": model, "gen_ai_workflow_name": graph}
        expected = sum(cost(told.usage) for told in answers)
        # Each call's is rounded to a millionth.
        rounding = len(answers) * 0.5e-6 + 1e-12
        got = figures.total(COST, currency="USD", gen_ai_provider_name=PROVIDER, **labels)
        near((model, graph), got, expected, rounding)
    everything = sum(cost(told.usage) for told in arranged.answered)
    rounding = len(arranged.answered) * 0.5e-6 + 1e-12
    near("all", figures.total(COST), everything, rounding)


def tools_are_counted(arranged) -> None:
    are_counted(arranged, TOOL, ["gen_ai_tool_name", "gen_ai_workflow_name"],
                arranged.traffic.tools)


def agents_are_counted_with_their_calls(arranged) -> None:
    figures, traffic = arranged.figures, arranged.traffic
    runs = sum(count for (graph, _), count in traffic.runs.items() if graph == "agent")
    which = {"gen_ai_workflow_name": "agent", "gen_ai_agent_name": "answer"}
    equal(figures.total(AGENT + "duration_seconds_count", **which), runs)
    asked = sum(told.graph == "agent" for told in traffic.model.told)
    equal(figures.total(AGENT + "inference_calls_sum", **which), asked)
    equal(figures.total(AGENT + "tool_calls_sum"), sum(traffic.tools.values()))


def runs_are_counted(arranged) -> None:
    are_counted(arranged, RUN, ["gen_ai_workflow_name"], arranged.traffic.runs)


def are_counted(arranged, metric: str, names: list[str], expected) -> None:
    """That these figures are all that there are, by labels and whether it failed."""
    got = collections.Counter()
    for name, labels, value in arranged.figures.samples:
        if name == metric + "_count":
            got[(*(labels[n] for n in names), labels["error_type"] != "")] += value
    equal(got, expected)
    took = arranged.figures.total(metric + "_sum")
    assert 0 < took <= arranged.traffic.seconds, took


def refusals_are_counted_once_each(arranged) -> None:
    got = {
        (labels["quota_kind"], labels["quota_unit"]): value
        for name, labels, value in arranged.figures.samples
        if name == REFUSALS and value
    }
    equal(got, dict(arranged.traffic.refusals))


def requests_are_counted_by_route(arranged) -> None:
    got = collections.Counter()
    for name, labels, value in arranged.figures.samples:
        if name == HTTP + "_count" and labels["http_request_method"] == "POST":
            for end in ("/v1/chat/completions", "/messages"):
                if labels["http_route"].endswith(end):
                    got["POST", end, int(labels["http_response_status_code"])] += value
    equal(got, arranged.traffic.requests)
    took = arranged.figures.total(HTTP + "_sum")
    assert 0 < took, took


def the_process_is_measured(arranged) -> None:
    if sys.platform != "linux":
        return
    figures = arranged.figures
    process = pathlib.Path(f"/proc/{arranged.exile.pid}")
    resident = 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())[1])
    measured = figures.total("process_resident_memory_bytes")
    assert resident / 2 <= measured <= resident * 2, (measured, resident)
    # What follows the name in brackets begins with field 3; 14 and 15 are ticks of user and system.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    near("cpu", figures.total("process_cpu_seconds_total"), used, 1.5)
    assert 0 <= time.time() - figures.total("process_start_time_seconds") < 600


def no_label_holds_an_id_a_key_or_a_word_of_anybody(arranged) -> None:
    secrets = [SECRET_WORD, "conv_", "run_", "usr_", arranged.traffic.admin]
    secrets += arranged.traffic.keys.values()
    found = {
        (name, secret)
        for name, labels, _ in arranged.figures.samples
        for secret in secrets
        if any(secret in value for value in labels.values())
    }
    equal(found, set())


def the_example_fits_an_exile_that_was_just_started(_) -> None:
    text = (EXAMPLES / "prometheus.yml").read_text()
    key = re.search(r"credentials_file: (\S+)", text)[1]
    equal((EXAMPLES / key).resolve(), REPOSITORY / ".exile" / "local.key")
    assert re.search(r'targets: \["127\.0\.0\.1:8080"\]', text), text


def promtool_takes_the_example(arranged) -> None:
    command = [arranged.options.promtool, "check", "config"]
    command += ["--lint-fatal", str(arranged.folder / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    equal((done.returncode, done.stderr), (0, ""))


def prometheus_reads_exile(arranged) -> None:
    (target,) = arranged.prometheus.ask("targets")["activeTargets"]
    equal((target["health"], target["lastError"]), ("up", ""))
    equal(target["labels"]["job"], "exile")


def prometheus_has_the_same_figures(arranged) -> None:
    for name, (kind, _) in METRICS.items():
        if kind == "gauge":
            # What stands at the moment is another moment's by then.
            continue
        sample = name if kind == "counter" else name + "_count"
        # Of HTTP only what does not go on: Prometheus itself is a client.
        matcher = '{http_route!="/metrics"}' if name == HTTP else ""
        ((_, got),) = arranged.prometheus.values(f"sum({sample}{matcher})")
        expected = arranged.figures.total(sample)
        if name == HTTP:
            expected -= arranged.figures.total(sample, http_route="/metrics")
        near(name, got, expected, 1e-9)


def the_dashboard_can_be_imported(_) -> None:
    dashboard = Dashboard()
    assert dashboard.json["schemaVersion"] >= 41, dashboard.json["schemaVersion"]
    assert dashboard.json["title"] and dashboard.json["description"]
    ids = [panel["id"] for panel in dashboard.json["panels"]]
    equal(len(ids), len(set(ids)))
    equal(dashboard.variables["datasource"]["type"], "datasource")
    equal(dashboard.variables["datasource"]["query"], "prometheus")
    taken = collections.Counter()
    for panel in dashboard.json["panels"]:
        at = panel["gridPos"]
        taken.update((at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"]))
    equal(set(taken.values()), {1})
    equal({x for x, _ in taken}, set(range(24)))
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in dashboard.panels:
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"], panel["id"]
        references = [target["refId"] for target in panel["targets"]]
        equal(len(references), len(set(references)))
        for part in [panel, *panel["targets"]]:
            equal(part["datasource"], source)


def the_dashboard_shows_every_metric(_) -> None:
    shown = " ".join(t["expr"] for panel in Dashboard().panels for t in panel["targets"])
    equal([name for name in METRICS if name not in shown], [])


def its_variables_find_their_values(arranged) -> None:
    dashboard = Dashboard()
    expected = {
        "job": {"exile"},
        "provider": {PROVIDER},
        "model": {told.model for told in arranged.told},
        "graph": {graph for graph, _ in arranged.traffic.runs},
    }
    got = {}
    for name, variable in dashboard.variables.items():
        if variable["type"] == "query":
            query = dashboard.fill(variable["query"]["query"])
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
            path = f"label/{label}/values?{urllib.parse.urlencode({'match[]': series})}"
            got[name] = set(arranged.prometheus.ask(path))
    equal(got, expected)


def traffic_tells_runs_from_calls_that_pass_through(arranged) -> None:
    (variable,) = (v for v in Dashboard().variables.values() if v["type"] == "custom")
    got = []
    for option in variable["options"]:
        matcher = f'{{gen_ai_workflow_name=~"{option["value"]}"}}'
        ((_, count),) = arranged.prometheus.values(f"sum({DURATION}_count{matcher})")
        got.append(count)
    passing = sum(not told.graph for told in arranged.told)
    equal(got, [len(arranged.told), len(arranged.told) - passing, passing])


def shows_something(panel: dict):
    """The check that each expression of a panel can be read and has something to show."""

    def check(arranged) -> None:
        dashboard = Dashboard()
        for target in panel["targets"]:
            expression = dashboard.fill(target["expr"])
            if target["instant"]:
                values = [value for _, value in arranged.prometheus.values(expression)]
            else:
                values = arranged.prometheus.ranges(expression)
            numbers = [value for value in values if math.isfinite(value)]
            assert numbers, f"nothing to show: {expression}"
            assert min(numbers) >= 0, f"below nothing: {expression}"

    check.__name__ = f"the panel “{panel['title']}” has something to show"
    return check


def queried(arranged, title: str) -> list[tuple[dict[str, str], float]]:
    """What the only expression of a panel says now."""
    dashboard = Dashboard()
    (panel,) = (panel for panel in dashboard.panels if panel["title"] == title)
    (target,) = panel["targets"]
    return arranged.prometheus.values(dashboard.fill(target["expr"]))


def error_rates_are_right(arranged) -> None:
    rates = {labels["gen_ai_request_model"]: value
             for labels, value in queried(arranged, "Error rate by model")}
    # The last round alone: the first was over before anybody looked.
    told = arranged.told[arranged.traffic.before:]
    steady = [t for t in told if t.model == "steady"]
    failed = sum(t.usage is None for t in steady) / len(steady)
    near("down", rates["down"], 1)
    near("steady", rates["steady"], failed, 0.02)


def a_ratio_of_nothing_is_nothing(arranged) -> None:
    dashboard = Dashboard()
    dashboard.chosen["model"] = "nobody-asked-this"
    for panel in dashboard.panels:
        if panel["fieldConfig"]["defaults"]["unit"] != "percentunit":
            continue
        for target in panel["targets"]:
            if "$model" in target["expr"]:
                equal(arranged.prometheus.values(dashboard.fill(target["expr"])), [])


def the_cost_of_today_begins_with_the_first_call(arranged) -> None:
    ((labels, shown),) = queried(arranged, "Cost today")
    equal(labels, {"currency": "USD"})
    spent = arranged.figures.total(COST)
    # What increase() adds beyond the first and the last scrape is part of it.
    assert spent * 0.999 <= shown <= spent * 1.25, (shown, spent)


CHECKS = [
    they_are_text_as_prometheus_reads_it,
    nobody_reads_them_without_a_key,
    a_plain_users_key_does_not_read_them,
    a_plain_users_key_with_the_scope_metrics_does,
    promtool_has_nothing_to_say,
    every_metric_is_there_with_its_type_and_its_labels,
    every_histogram_adds_up,
    nothing_ever_falls,
    every_attempt_is_counted_once,
    attempts_take_as_long_as_they_took,
    the_first_chunk_and_those_after_it_are_timed,
    tokens_are_those_that_the_model_told,
    tokens_of_single_calls_add_up_to_the_same,
    cost_is_price_times_tokens,
    tools_are_counted,
    agents_are_counted_with_their_calls,
    runs_are_counted,
    refusals_are_counted_once_each,
    requests_are_counted_by_route,
    the_process_is_measured,
    no_label_holds_an_id_a_key_or_a_word_of_anybody,
    the_example_fits_an_exile_that_was_just_started,
    promtool_takes_the_example,
    prometheus_reads_exile,
    prometheus_has_the_same_figures,
    the_dashboard_can_be_imported,
    the_dashboard_shows_every_metric,
    its_variables_find_their_values,
    traffic_tells_runs_from_calls_that_pass_through,
    error_rates_are_right,
    a_ratio_of_nothing_is_nothing,
    the_cost_of_today_begins_with_the_first_call,
]


def main() -> None:
    """Arranges everything, runs every check and counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--exile", required=True, help="the exile binary")
    parser.add_argument("--prometheus", default="prometheus", help="path or name")
    parser.add_argument("--promtool", default="promtool", help="path or name")
    options = parser.parse_args()
    options.exile = str(pathlib.Path(options.exile).resolve())
    for name in ("prometheus", "promtool"):
        found = shutil.which(getattr(options, name))
        if not found:
            parser.error(f"there is no {getattr(options, name)}: Debian's package is `prometheus`")
        setattr(options, name, str(pathlib.Path(found).resolve()))
    end_children_on_sigterm()
    checks = CHECKS + [shows_something(panel) for panel in Dashboard().panels]
    with tempfile.TemporaryDirectory(prefix="exile-judge-") as folder:
        with arrange(options, pathlib.Path(folder)) as arranged:
            passed = sum(passes(check, arranged) for check in checks)
    print(f"{passed} of {len(checks)}")
    sys.exit(passed < len(checks))


if __name__ == "__main__":
    main()
