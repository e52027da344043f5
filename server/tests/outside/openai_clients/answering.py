"""The other end of `client.py`, for clients in Python."""

import asyncio
import inspect
import json
import os
import sys

import pydantic

URL = os.environ["CLIENT_URL"]
KEY = os.environ["CLIENT_KEY"]


class Plan(pydantic.BaseModel):
    """What the model is to answer."""

    city: str
    days: int


def answer(cases: dict) -> None:
    """Answers every line of the input with what its case returns or raises."""
    asyncio.run(_answer(cases))


async def _answer(cases: dict) -> None:
    for line in sys.stdin:
        arguments = json.loads(line)
        # What arrived before a failure counts as well.
        pieces: list[str] = []
        try:
            seen = cases[arguments.pop("case")](pieces=pieces, **arguments)
            seen = await seen if inspect.isawaitable(seen) else seen
        except Exception as error:  # noqa: BLE001: what a client raises is what is judged
            seen = {"error": described(error)}
        print(json.dumps({"pieces": pieces, **seen}), flush=True)


def described(error: Exception) -> dict:
    """What somebody could act upon."""
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": str(error),
    }


def spoken(text: str) -> list[dict]:
    """One message of the user; none for an empty text."""
    return [{"role": "user", "content": text}] if text else []


def usage(of) -> dict | None:
    """The tokens of a completion of `openai`."""
    return of and {"input": of.prompt_tokens, "output": of.completion_tokens}


def called(call) -> list:
    """A tool call of `openai`."""
    return [call.id, call.function.name, call.function.arguments]
