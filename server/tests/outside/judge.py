"""Runs a list of checks against one arrangement of programs and counts them."""

import argparse
import pathlib
import sys
import tempfile
import traceback

from processes import end_children_on_sigterm


def main(arrange, checks: list) -> None:
    """`arrange(options, folder)` is a context manager; each check gets what it yields."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--exile", required=True, help="the exile binary")
    parser.add_argument("--venv", required=True, type=pathlib.Path, help="holds the outside program")
    options = parser.parse_args()
    options.exile = str(pathlib.Path(options.exile).resolve())
    end_children_on_sigterm()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="exile-judge-") as folder:
        with arrange(options, pathlib.Path(folder)) as arranged:
            for check in checks:
                failed += not passes(check, arranged)
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


def passes(check, arranged) -> bool:
    """Whether the check raises nothing; prints which it was."""
    name = check.__name__.replace("_", " ")
    try:
        check(arranged)
    except Exception:  # noqa: BLE001: whatever a check raises is its verdict
        print(f"FAIL {name}", flush=True)
        traceback.print_exc()
        return False
    print(f"ok   {name}", flush=True)
    return True


def equal(got, expected) -> None:
    """Says both sides when they differ."""
    if got != expected:
        raise AssertionError(f"got {got!r}, expected {expected!r}")
