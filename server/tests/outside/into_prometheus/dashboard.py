"""The example dashboard, as Grafana would ask for it."""

import json
import re

from exile import REPOSITORY

EXAMPLES = REPOSITORY / "examples" / "monitoring"


class Dashboard:
    """The example, with all of its variables at their first choice."""

    def __init__(self):
        self.json = json.loads((EXAMPLES / "grafana" / "dashboard.json").read_text())
        self.panels = [panel for panel in self.json["panels"] if panel["type"] != "row"]
        self.variables = {v["name"]: v for v in self.json["templating"]["list"]}
        chosen = {"__rate_interval": "1m", "__range_s": "3600", "__range": "1h"}
        for name, variable in self.variables.items():
            if variable["type"] == "custom":
                chosen[name] = variable["current"]["value"]
            elif variable["type"] == "query":
                # Without a text of its own, "All" is every value that was found.
                chosen[name] = variable.get("allValue") or "exile"
        self.chosen = chosen

    def fill(self, text: str) -> str:
        """With what was chosen in the place of variables."""
        filled = re.sub(r"\$(\w+)", lambda found: self.chosen[found[1]], text)
        assert "$" not in filled, filled
        return filled
