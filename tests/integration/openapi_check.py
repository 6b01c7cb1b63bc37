"""Holds real answers against the OpenAPI document: enough of JSON Schema for what that document uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from node.api.read import openapi_document

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi_document())
KNOWN_WORDS = {
    "$ref", "additionalProperties", "default", "description", "enum", "format", "items", "maxItems", "maximum",
    "minItems", "minimum", "oneOf", "pattern", "properties", "required", "type",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None),
}  # fmt: skip


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference."""
    while "$ref" in node:
        found: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Return what of ``value`` is not as ``schema`` says."""
    schema = resolve(schema)
    assert set(schema) <= KNOWN_WORDS, set(schema) - KNOWN_WORDS
    if "oneOf" in schema:
        tried = [list(faults(value, option, where)) for option in schema["oneOf"]]
        fitting = [found for found in tried if not found]
        if len(fitting) != 1:
            yield f"{where}: fits {len(fitting)} of {len(tried)}: {tried}"
    names = schema.get("type", [])
    kinds = [TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    if kinds and type(value) not in kinds:
        yield f"{where}: {type(value).__name__} is not {names}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} is not {schema['pattern']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{where}: {value} is out of bounds"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _object_faults(value, schema, where)


def _object_faults(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{where}.{name}: missing" for name in schema.get("required", []) if name not in value)
    for name, item in value.items():
        if name in properties:
            yield from faults(item, properties[name], f"{where}.{name}")
        elif more is False:
            yield f"{where}.{name}: not in the document"
        elif isinstance(more, dict):
            yield from faults(item, more, f"{where}.{name}")


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """Return the operation that serves a path, None where the document has none."""
    for template, operations in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.partition("?")[0]):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None


def check_answer(method: str, path: str, status: int, content_type: str, value: Any) -> None:
    """Fail unless the document has this answer, and its body is as the document says."""
    operation = operation_of(method, path)
    if operation is None:
        assert status in {404, 405}
        return
    assert str(status) in operation["responses"], f"{method} {path}: {status} is not documented"
    content = resolve(operation["responses"][str(status)])["content"]
    assert content_type in content, f"{method} {path}: {status} is {content_type}, not {list(content)}"
    assert list(faults(value, content[content_type]["schema"])) == []
