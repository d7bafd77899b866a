"""Parameters of paths and queries: ids and addresses."""

from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from fastapi import Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.config import JsonDict

from services.gateway.http.errors import InvalidRequestError
from shared.addresses import MAX_ADDRESS_LENGTH, InvalidAddressError
from shared.channels import Channel, channel_of_address
from shared.validation import Fault

_MAX_NAME = 100
_MAX_FAULTS = 20

ADDRESS_SCHEMA: JsonDict = {"format": "participant"}

AddressPath = Annotated[
    str,
    Path(
        max_length=MAX_ADDRESS_LENGTH,
        description="A phone number or an e-mail address",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+18045551234"],
    ),
]


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have: they may be misspelt.

    Raises:
        InvalidRequestError: with every parameter at fault.
    """
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    known = {*_names_in(route.dependant)}
    objects = {*_objects_in(route)}
    names = request.query_params.keys() - known
    if unknown := {name for name in names if name.partition("[")[0] not in objects}:
        faults = [Fault(name[:_MAX_NAME], "is not a parameter of this request") for name in sorted(unknown)]
        raise InvalidRequestError(*faults[:_MAX_FAULTS])


def _names_in(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (each.alias or name for name, each in model.model_fields.items())
        else:
            yield field.alias
    for dependency in dependant.dependencies:
        yield from _names_in(dependency)


def _objects_in(route: APIRoute) -> Iterator[str]:
    """Return the names of parameters that are objects, such as `metadata[order]`."""
    for parameter in (route.openapi_extra or {}).get("parameters", ()):
        if parameter.get("style") == "deepObject":
            yield parameter["name"]


def parse_uuid(text: str) -> UUID | None:
    """Return the id in a path, or None if the text is not an id."""
    try:
        return UUID(text)
    except ValueError:
        return None


MAX_BIGINT = 2**63 - 1

ConversationReference = int | UUID
"""The id or the key of a conversation."""


def parse_conversation(text: str) -> ConversationReference | None:
    """Return the id or the key of a conversation, or None if the text is neither."""
    if text.isascii() and text.isdecimal():
        # Python refuses to parse thousands of digits, and PostgreSQL has no integers above this one.
        number = int(text) if len(text) <= len(str(MAX_BIGINT)) else 0
        return number if 1 <= number <= MAX_BIGINT else None
    return parse_uuid(text)


def parse_address(text: str, name: str, *, default_region: str) -> tuple[Channel, str]:
    """Return the channel and the key of an address in a URL, where an unescaped `+` arrives as a space.

    Raises:
        InvalidRequestError: the parameter `name` is not an address.
    """
    channel = channel_of_address(text)
    if "@" in text:
        text = text.strip().replace(" ", "+")
    elif text.startswith(" "):
        text = f"+{text[1:]}"
    try:
        return channel, channel.parse_address(text, default_region=default_region).key
    except InvalidAddressError as exc:
        raise InvalidRequestError(Fault(name, str(exc))) from exc
