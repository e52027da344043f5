"""OpenAI's published OpenAPI document, and whether a body is what it says."""

import base64
import json
import os
import pathlib
import struct

import jsonschema
import referencing
import referencing.jsonschema

from recorder import Exchange

FILE = "openai-openapi.json"
ADDRESS = "urn:openai"
BESIDE = pathlib.Path(__file__).resolve().parents[5] / "shared" / "data"

CHAT = "CreateChatCompletionResponse"
CHUNK = "CreateChatCompletionStreamResponse"
EMBEDDINGS = "CreateEmbeddingResponse"
MODELS = "ListModelsResponse"
ERROR = "ErrorResponse"


def document() -> dict | None:
    """The document; `None` where there is none and nobody said that there is."""
    folder = os.environ.get("EXILE_DATA")
    path = pathlib.Path(folder or BESIDE) / FILE
    if not folder and not path.exists():
        return None
    return nullable(json.loads(path.read_text()))


def nullable(node):
    """OpenAPI 3.0's `nullable`, which the document uses although it says 3.1, in 3.1's words."""
    if isinstance(node, list):
        return [nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: nullable(value) for name, value in node.items()}
    if node.pop("nullable", None) is True:
        return {"anyOf": [node, {"type": "null"}]}
    return node


class Published:
    """Holds bodies against the schemas of the document."""

    def __init__(self, openapi: dict):
        resource = referencing.jsonschema.DRAFT202012.create_resource(openapi)
        registry = referencing.Registry().with_resource(ADDRESS, resource)
        self._validators = {
            name: jsonschema.Draft202012Validator(
                {"$ref": f"{ADDRESS}#/components/schemas/{name}"}, registry=registry)
            for name in (CHAT, CHUNK, EMBEDDINGS, MODELS, ERROR)
        }

    def complaints(self, name: str, body) -> list[str]:
        """What the schema of that name finds wrong, with the place."""
        return [f"{error.json_path}: {error.message[:300]}"
                for error in self._validators[name].iter_errors(body)]


def bodies(exchange: Exchange) -> list[tuple[str, dict]]:
    """Each body of the answer that came whole, and the name of its schema."""
    if exchange.streamed:
        chunks = [json.loads(data) for data in exchange.events() if data != "[DONE]"]
        return [(ERROR if "error" in chunk else CHUNK, chunk) for chunk in chunks]
    if not exchange.body:
        return []
    body = json.loads(exchange.body)
    if exchange.status >= 400:
        return [(ERROR, body)]
    if exchange.path.endswith("/embeddings"):
        return [(EMBEDDINGS, numbers(body))]
    return [(MODELS if exchange.path.endswith("/models") else CHAT, body)]


def numbers(body: dict) -> dict:
    """With numbers for the base64 that was asked for: the document describes nothing else."""
    data = [dict(item) for item in body["data"]]
    for item in data:
        if isinstance(item["embedding"], str):
            raw = base64.b64decode(item["embedding"], validate=True)
            item["embedding"] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return {**body, "data": data}
