"""Examples of responses, composed from the examples of their fields."""

from typing import Any

_BY_FORMAT = {
    "date-time": "2026-01-02T03:04:05.678901Z",
    "uuid": "0199b1f0-c2d4-7a3e-8f51-d6a7c3b2e940",
}
_BY_TYPE = {"string": "text", "integer": 1, "number": 1.0, "boolean": False}


def example_of(  # noqa: PLR0911 - one for each kind of schema
    schema: dict[str, Any], schemas: dict[str, Any]
) -> Any:  # noqa: ANN401 - JSON
    """Return a value that conforms to a schema: its own example, or one of the examples of its parts.

    Args:
        schema: a JSON schema.
        schemas: those that it may refer to, by name.
    """
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return example_of(options[0], schemas)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        return None  # allowed for each of them
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return {name: example_of(each, schemas) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [example_of(schema.get("items", {}), schemas)]
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE[kind])
