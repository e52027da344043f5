"""What exile serves to Prometheus: names, types and labels, and a page of them."""

import re

from model import TOKENS

CALL = {
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_workflow_name",
}
INFERENCE = "gen_ai_client_inference_"
DURATION = INFERENCE + "duration_seconds"
FIRST_CHUNK = INFERENCE + "time_to_first_chunk_seconds"
CHUNK = INFERENCE + "time_per_output_chunk_seconds"
COST = "exile_cost_total"
REFUSALS = "exile_quota_refusals_total"
TOOL = "gen_ai_execute_tool_duration_seconds"
RUN = "gen_ai_invoke_workflow_duration_seconds"
AGENT = "gen_ai_invoke_agent_"
NODE = "exile_node_duration_seconds"
OPEN_RUNS = "exile_runs"
OLDEST_RUN = "exile_oldest_run_age_seconds"
HTTP = "http_server_request_duration_seconds"

# What is served: type and labels.
METRICS = {
    DURATION: ("histogram", CALL | {"error_type"}),
    FIRST_CHUNK: ("histogram", CALL),
    CHUNK: ("histogram", CALL),
    INFERENCE + "operation_input_tokens": ("histogram", CALL),
    INFERENCE + "operation_output_tokens": ("histogram", CALL),
    TOOL: ("histogram", {"gen_ai_tool_name", "gen_ai_workflow_name", "error_type"}),
    RUN: ("histogram", {"gen_ai_workflow_name", "error_type"}),
    NODE: ("histogram", {"gen_ai_workflow_name", "exile_node_kind", "error_type"}),
    AGENT + "duration_seconds":
        ("histogram", {"gen_ai_workflow_name", "gen_ai_agent_name", "error_type"}),
    AGENT + "inference_calls": ("histogram", {"gen_ai_workflow_name", "gen_ai_agent_name"}),
    AGENT + "tool_calls": ("histogram", {"gen_ai_workflow_name", "gen_ai_agent_name"}),
    COST: ("counter", CALL - {"gen_ai_operation_name"} | {"currency"}),
    REFUSALS: ("counter", {"quota_kind", "quota_unit"}),
    OPEN_RUNS: ("gauge", {"status"}),
    OLDEST_RUN: ("gauge", {"status"}),
    HTTP: ("histogram", {"http_request_method", "http_route", "http_response_status_code"}),
}
METRICS |= {
    f"{INFERENCE}usage_{kind}_tokens_total": ("counter", CALL | {"gen_ai_token_modality"})
    for kind in TOKENS
}

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
PARTS = ("_bucket", "_sum", "_count")


class Figures:
    """What a page of metrics says."""

    def __init__(self, text: str):
        self.types: dict[str, str] = {}
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in filter(None, text.splitlines()):
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            elif not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def metric(self, sample: str) -> str:
        """The metric that a sample is of: of a histogram it has several."""
        stems = [sample.removesuffix(part) for part in PARTS if sample.endswith(part)]
        histograms = (stem for stem in stems if self.types.get(stem) == "histogram")
        return next(histograms, sample)

    def total(self, name: str, **labels) -> float:
        """The sum of all samples of that name that have these labels."""
        wanted = labels.items()
        return sum(v for n, have, v in self.samples if n == name and wanted <= have.items())
