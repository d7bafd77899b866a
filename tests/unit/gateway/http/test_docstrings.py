"""Docstrings as descriptions of JSON schemas."""

from enum import StrEnum

from pydantic import BaseModel, Field

from services.gateway.http.docstrings import describe_attributes


class Color(StrEnum):
    """The color of a thing.

    Attributes:
        RED, DARK_RED: the default.
        BLUE: only for things
            that are new.
    """

    RED = "red"
    DARK_RED = "dark_red"
    BLUE = "blue"


class Thing(BaseModel):
    """A thing.

    Attributes:
        color: its color.
        size: the size in
            meters; None if it is unknown.
    """

    name: str = Field(description="The name")
    color: Color
    size: float | None


def test_attributes_are_described_where_readers_of_a_schema_look_for_them() -> None:
    schema = Thing.model_json_schema()
    schemas = {"Thing": schema, **schema["$defs"]}

    describe_attributes(schemas)

    assert {name: each["description"] for name, each in schemas.items()} == {
        "Thing": "A thing.",
        "Color": "The color of a thing.\n\n"
        "- `red`, `dark_red`: the default.\n- `blue`: only for things that are new.",
    }
    assert {name: each["description"] for name, each in schema["properties"].items()} == {
        "name": "The name",
        "color": "Its color",
        "size": "The size in meters; null if it is unknown",
    }
