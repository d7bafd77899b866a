"""API keys, and the names of the callers to whom they belong."""

import hmac
import re
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from fastapi import Request, Response, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase

from services.gateway.http.errors import ForbiddenError, UnauthorizedError
from shared.settings import MIN_SECRET

ANONYMOUS = "anonymous"
"""The name of every caller if no API keys are configured."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_KEY = re.compile(r"[!-~]+")

_SAFE_METHODS = frozenset({"GET", "HEAD"})


class Access(StrEnum):
    """The access that an API key grants."""

    READ = "read"
    WRITE = "write"


class ApiKeys:
    """The API keys of the clients. A name may have several, so that keys can be rotated."""

    def __init__(self, keys: Mapping[str, str], *, access: Access = Access.WRITE) -> None:
        self._callers = {key.encode(): (name, access) for key, name in keys.items()}

    @classmethod
    def parse(cls, text: str, *, access: Access = Access.WRITE) -> Self:
        """Parse `name:key,…`, with keys of at least 16 characters.

        Raises:
            ValueError: the text has another form; the message repeats no key.
        """
        keys: dict[str, str] = {}
        for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            name, _, key = entry.partition(":")
            if not _NAME.fullmatch(name) or not _KEY.fullmatch(key):
                raise ValueError(f"entry {number} is not name:key")
            if len(key) < MIN_SECRET:
                raise ValueError(f"entry {number} has a key of less than {MIN_SECRET} characters")
            if key in keys:
                raise ValueError(f"entry {number} has the same key as another entry")
            keys[key] = name
        if not keys:
            raise ValueError("has no entries")
        return cls(keys, access=access)

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __or__(self, other: "ApiKeys") -> "ApiKeys":
        """Return the keys of both; `other` has precedence."""
        both = ApiKeys({})
        both._callers = {**self._callers, **other._callers}
        return both

    def names(self) -> set[tuple[str, Access]]:
        """Return the names of the keys with their access."""
        return set(self._callers.values())

    def caller_of(self, key: str) -> tuple[str, Access] | None:
        """Return the name and access of a key, in a time that does not reveal how much of it was guessed."""
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, key.encode()):
                found = caller
        return found


class ApiKeyAuthentication(SecurityBase):
    """Returns the name of the caller to whom an API key belongs, and refuses requests without a valid key.

    Every caller is anonymous if no keys are configured.
    """

    scheme_name = "ApiKey"
    model = HTTPBearer(description="An API key")

    async def __call__(self, request: Request) -> str:
        keys: ApiKeys = request.app.state.api_keys
        if not keys:
            return ANONYMOUS
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthorizedError("An API key is required: Authorization: Bearer …", challenge="Bearer")
        caller = keys.caller_of(key.strip())
        if caller is None:
            raise UnauthorizedError("The API key is not valid", challenge="Bearer")
        name, access = caller
        if access is Access.READ and request.method not in _SAFE_METHODS:
            raise ForbiddenError("The API key is read only")
        request.state.access = access
        return name


authenticate = ApiKeyAuthentication()

Caller = Annotated[str, Security(authenticate)]
"""The name of the caller that the API key belongs to."""


class AuthenticatedRoute(APIRoute):
    """A route that authenticates the caller before FastAPI reads and parses the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_authenticated(request: Request) -> Response:
            await authenticate(request)
            return await handle(request)

        return handle_authenticated
