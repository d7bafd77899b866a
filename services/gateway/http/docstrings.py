"""Descriptions of JSON schemas, which pydantic takes from docstrings."""

import re
from typing import Any

_ATTRIBUTE = re.compile(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def describe_attributes(schemas: dict[str, Any]) -> None:
    """Move what docstrings say about attributes to the properties.

    The values of an enumeration have no descriptions of their own, so those become a list in Markdown.
    """
    for schema in schemas.values():
        summary, _, section = schema.get("description", "").partition("\n\nAttributes:\n")
        attributes = [
            (names.split(", "), " ".join(text.split()).replace("None ", "null "))
            for names, text in _ATTRIBUTE.findall(section)
        ]
        if not attributes:
            continue
        schema["description"] = summary
        if "enum" in schema:
            items = [
                f"- {', '.join(f'`{name.lower()}`' for name in names)}: {text}" for names, text in attributes
            ]
            schema["description"] += "\n\n" + "\n".join(items)
            continue
        for (name,), text in attributes:
            schema["properties"][name]["description"] = text[0].upper() + text[1:].removesuffix(".")
