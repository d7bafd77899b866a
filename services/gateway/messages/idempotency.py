"""The `Idempotency-Key` of a request, and the store of the requests that have one.

A key stands for one message: the first request with it stores the event that it is about to publish. A
repeated request publishes that event again, since the first one may have been interrupted before it did. The
streams recognise the repetition. After a day, the key is forgotten, and a request with it is a new message.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import orjson
import structlog
from fastapi import Depends, Header, Request
from pydantic import BaseModel

from services.gateway.http.errors import ConflictError, InvalidRequestError
from shared.addresses import Address
from shared.bus.key_value import KeyValueStore, RevisionConflictError, UnreadableValueError
from shared.bus.topology import KEY_RETENTION
from shared.errors import BusUnavailableError
from shared.events import Event
from shared.ids import RequestId
from shared.message import DeliveryRequest
from shared.validation import Fault

_log = structlog.get_logger()

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
REPLAYED_RESPONSE_HEADER: Mapping[str, Any] = {
    REPLAYED_HEADER: {
        "description": "`true` if an earlier request with the same `Idempotency-Key` was accepted",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
"""The documentation of `REPLAYED_HEADER` in the OpenAPI document."""

_MAX_KEY = 255

_UNREADABLE = (
    "The record of the first request with this Idempotency-Key cannot be read. That request may have been "
    "accepted: look for its message before you send it with another key."
)

_BARE = rf"[!#-~][ -~]{{0,{_MAX_KEY - 1}}}"
_QUOTED = rf'"(?:[ !#-\[\]-~]|\\["\\]){{1,{_MAX_KEY}}}"'
KEY_PATTERN = f"^(?:{_BARE}|{_QUOTED})$"


async def _idempotency_key(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="Requests with the same key are accepted as one message and get the same response",
            json_schema_extra={"format": "idempotency-key", "pattern": KEY_PATTERN},
        ),
    ] = None,
) -> str | None:
    return parse_key(request.headers.getlist(HEADER))


IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]


def parse_key(values: list[str]) -> str | None:
    r"""Parse the header, whose value is a quoted string (RFC 8941), or a bare one.

    Raises:
        InvalidRequestError: the header is empty, too long, repeated, or not printable ASCII.
    """
    if not values:
        return None
    if len(values) > 1:
        raise _invalid("occurs more than once")
    value = values[0].strip(" \t")
    if re.fullmatch(_QUOTED, value):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    if re.fullmatch(_BARE, value):
        return value
    raise _invalid(f"must be a quoted string or printable ASCII, of 1 to {_MAX_KEY} characters")


def _invalid(detail: str) -> InvalidRequestError:
    return InvalidRequestError(Fault(HEADER, detail))


def fingerprint(body: BaseModel) -> str:
    """Return a digest of the fields that are set in a request, which distinguishes different requests.

    Fields that are absent, null or empty do not count, so that a field which a later release adds does not
    change the digests of requests without it.
    """
    fields = {name: value for name, value in body if value}
    encoded = orjson.dumps(fields, _encode, orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
    return blake2b(encoded, digest_size=16).hexdigest()


def _encode(value: object) -> orjson.Fragment:
    if not isinstance(value, Address):
        raise TypeError(f"{type(value)} cannot be part of a request")
    # In this order, so that an address without a name has the same digest in every release.
    fields = {"spelling": value.spelling, "key": value.key} | ({"name": value.name} if value.name else {})
    return orjson.Fragment(orjson.dumps(fields))


class RequestRecord(BaseModel):
    """The record of a request, with everything that the request publishes."""

    fingerprint: str


class StoredRequest(RequestRecord):
    event: Event[DeliveryRequest]


Stored = TypeVar("Stored", bound=RequestRecord)


@dataclass(frozen=True, slots=True)
class IdempotencyStore(Generic[Stored]):
    """The requests with an idempotency key that were accepted within the last day."""

    requests: KeyValueStore[Stored]

    async def claim(self, id_: RequestId, request: Stored) -> Stored:
        """Return the record of the first request with this key: this one, unless there was one before.

        Args:
            id_: the id of the request, from its client and key.
            request: the record.

        Raises:
            InvalidRequestError: the key was used for a different request.
            ConflictError: the record of the first request cannot be read.
            BusUnavailableError: NATS does not answer.
        """
        try:
            await self.requests.put(str(id_), request, after=None, ttl=KEY_RETENTION)
        except RevisionConflictError:
            first = await self.find(id_, request.fingerprint)
            if first is None:
                # A replica of the bucket that lags behind its leader.
                raise BusUnavailableError("the idempotency record cannot be read yet") from None
            return first
        return request

    async def find(self, id_: RequestId, digest: str) -> Stored | None:
        """Return the record of the first request with the key, or None; raise the same errors as `claim`.

        Args:
            id_: the id of the request.
            digest: the fingerprint that it must have.
        """
        try:
            found = await self.requests.get(str(id_))
        except UnreadableValueError as exc:
            _log.error("idempotency_record_unreadable", error=str(exc))
            raise ConflictError("outcome_unknown", _UNREADABLE) from exc
        if found is None:
            return None
        if found.value.fingerprint != digest:
            raise _invalid("was used for a different request")
        return found.value
