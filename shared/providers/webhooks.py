"""The declaration of a provider's webhooks, and the values that pass between them and the gateway.

The gateway mounts each `Webhook`, checks the signature, lets the provider parse the request, and publishes
the content.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from shared.errors import ServiceError
from shared.ids import MessageId
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.charsets import Decoded, decode
from shared.settings import Settings
from shared.suppressions import SuppressionChange
from shared.validation import MAX_BODY, Fault, context_of, faults_of, parse_json_text

S = TypeVar("S", bound=Settings)
Model = TypeVar("Model", bound=BaseModel)


_SURROGATE = re.compile("[\ud800-\udfff]")

_MAX_BYTES_KEPT = 48 * 1024

_CHARSET = re.compile(r"(?i)\bcharset=\"?([^\s;\"]+)")

_LENIENT = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
"""Accepts control characters in strings, and NaN, which some providers write in place of null."""


class WebhookError(ServiceError):
    """The content of a webhook cannot be used; the gateway keeps the webhook as a dead letter."""


class UnreadableWebhookError(WebhookError):
    """The body is not in the format of the webhook."""


class InvalidWebhookError(WebhookError):
    """Fields that are needed are missing or not valid."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.detail}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A request to a webhook.

    Attributes:
        path: below the public URL of the gateway.
        query: the text after the `?`, as received.
        headers: their names are compared without regard to case.
        received_at: when the request arrived.
        default_region: ISO 3166 country of phone numbers in national form.
    """

    path: str = ""
    query: bytes = b""
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    default_region: str


def parse_own_id(value: object) -> MessageId | None:
    """Parse our id of a message, or return None: other users of the account may have put anything there."""
    try:
        return MessageId(UUID(str(value)))
    except ValueError:
        return None


@dataclass(slots=True)
class WebhookContent:
    """The content of a webhook.

    Attributes:
        files: the bytes of the files of its messages, by digest. They have to be stored first.
        invalid: the faults of each part that could not be parsed, if a webhook consists of several parts.
        invalid_parts: the body of a webhook that consists of these parts only, if they can be kept.
    """

    messages: list[IncomingMessage] = field(default_factory=list)
    receipts: list[IncomingReceipt] = field(default_factory=list)
    suppressions: list[SuppressionChange] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    invalid: list[Sequence[Fault]] = field(default_factory=list)
    invalid_parts: bytes | None = None

    @property
    def error(self) -> InvalidWebhookError:
        """The faults of all parts that could not be parsed."""
        return InvalidWebhookError(*dict.fromkeys(fault for faults in self.invalid for fault in faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An endpoint that a provider posts to.

    Attributes:
        name: the operation id in the OpenAPI document.
        path: below `/api/webhooks/`.
        summary: for the OpenAPI document.
        media_type: the content type that the provider posts; others are refused unless webhooks are signed.
        body: the model or the JSON schema of the body, for the OpenAPI document.
        parse: returns the content of a request; raises UnreadableWebhookError or InvalidWebhookError.
        respond: returns the body of the response: a model, a text, or None for a response without a body.
        response: the model that `respond` returns, or the media type of its text.
        max_size: bytes of a request.
    """

    name: str
    path: str
    summary: str
    media_type: str = "application/json"
    body: type[BaseModel] | Mapping[str, Any]
    parse: Callable[[WebhookRequest], WebhookContent]
    respond: Callable[[WebhookContent], BaseModel | str | None] = lambda _: None
    response: type[BaseModel] | str | None = None
    max_size: int = MAX_BODY


class Refusal(StrEnum):
    """The reason why a webhook is not accepted as genuine, as the metrics name it."""

    UNSIGNED = "unsigned"
    EXPIRED = "expired"
    WRONG_SIGNATURE = "wrong_signature"
    NO_SECRET = "no_secret"  # noqa: S105 - the name of a reason


Verifier = Callable[[WebhookRequest], Refusal | None]
"""Returns the reason why a webhook is not genuine, or None if it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureScheme(Generic[S]):
    """How a provider signs its webhooks.

    Attributes:
        name: of the security scheme in the OpenAPI document.
        header: carries the signature.
        description: for the OpenAPI document.
        check_headers: returns the reason why a webhook that has the header is refused before its body is
            read, given its headers and the time; None if the body has to decide.
        verifier: returns the verifier for some settings, or None if they do not have what it needs. Raises
            ValueError if the settings are inconsistent; the message names the variables.
        challenge: for `WWW-Authenticate`; with it, a refusal is a 401, and without it, a 403.
    """

    name: str
    header: str
    description: str
    check_headers: Callable[[Mapping[str, str], datetime], Refusal | None] = lambda *_: None
    verifier: Callable[[S], Verifier | None]
    challenge: str | None = None


def parse_model(request: WebhookRequest, model: type[Model]) -> tuple[Any, Model, list[str]]:
    """Read as much of a JSON request as possible.

    Args:
        request: the request.
        model: the model of its body, with the types of `shared.providers.fields`.

    Returns:
        The JSON value in a form that can be stored, the model, and warnings about unreadable parts.

    Raises:
        UnreadableWebhookError: the body is not JSON.
        InvalidWebhookError: with every field at fault.
    """
    decoded = _decoded(request)
    posted = _parse(decoded.text)
    warnings: list[str] = []
    validated = validate(posted, model, default_region=request.default_region, warnings=warnings)
    raw = storable(posted)
    if decoded.is_lossy:
        warnings.append("Some characters could not be decoded; the bytes are kept in the raw payload")
        raw = {**raw, "undecoded_bytes": b64encode(request.body[:_MAX_BYTES_KEPT]).decode()}
    return raw, validated, warnings


def json_of(request: WebhookRequest) -> Any:  # noqa: ANN401 - JSON may be anything
    """Return the JSON value of a request, which may contain lone surrogates.

    Common mistakes are tolerated: a character set other than UTF-8, a BOM, and control characters.

    Raises:
        UnreadableWebhookError: the body is not JSON.
    """
    return _parse(_decoded(request).text)


def _decoded(request: WebhookRequest) -> Decoded:
    charset = _CHARSET.search(request.headers.get("content-type", ""))
    return decode(request.body, charset and charset[1])


def _parse(text: str) -> Any:  # noqa: ANN401 - JSON may be anything
    try:
        return parse_json_text(text, _LENIENT)
    except ValueError as exc:
        raise UnreadableWebhookError(str(exc)) from exc


def storable(value: Any) -> Any:  # noqa: ANN401 - JSON may be anything
    """Return a JSON value in which lone surrogates are replaced: providers cut texts in the middle of one."""
    try:
        to_json(value)
    except PydanticSerializationError:
        return json.loads(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    return value


def validate(
    value: object, model: type[Model], *, default_region: str, warnings: list[str] | None = None
) -> Model:
    """Validate a parsed value.

    Args:
        value: the value.
        model: its model.
        default_region: ISO 3166 country of phone numbers in national form.
        warnings: the list to which the types of `shared.providers.fields` add what they could not read.

    Raises:
        InvalidWebhookError: with every field at fault.
    """
    try:
        context = {**context_of(default_region), "warnings": [] if warnings is None else warnings}
        return model.model_validate(value, context=context)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidWebhookError(*faults_of(errors)) from exc
