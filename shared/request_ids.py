"""The ids of HTTP requests, by which a client finds its request in the logs and traces of a service."""

import re
from collections.abc import Iterable

import uuid_utils

HEADER = "X-Request-Id"

_NAME = HEADER.lower().encode()
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that the client has given its request, or a new one if it is missing or malformed.

    Args:
        headers: of the request, with names in lower case.
    """
    for name, value in headers:
        if name == _NAME:
            return value.decode() if _WELL_FORMED.fullmatch(value) else new_request_id()
    return new_request_id()


def new_request_id() -> str:
    return uuid_utils.uuid7().hex
