"""The parts of a provider: an adapter that sends, and webhooks that receive.

    ProviderError
    ├── NotReachedError       no connection was made, so the provider has nothing: try again at once
    ├── TemporaryError        the provider asks to be tried later
    ├── UnknownOutcomeError   the provider was asked and did not answer: it may have the message
    ├── RejectedError         the provider will never accept this message
    └── CredentialsError      the provider accepts nothing from us

An adapter reports which of these occurred; the sender decides what follows.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import urlencode

import orjson

from shared.channels import Channel
from shared.errors import ServiceError
from shared.message import Message
from shared.providers.webhooks import SignatureScheme, Webhook
from shared.settings import Settings

S = TypeVar("S", bound=Settings)

OPTED_OUT = "opted_out"
"""Code of the error when a recipient has opted out, according to us or to the provider."""


class ProviderError(ServiceError):
    """The provider did not accept the message.

    Attributes:
        code: short and stable, such as `http_503`.
        status_code: of the HTTP response, if there was one.
        retry_after: how long the provider asks us to wait.
        throttled: whether the provider did not process the request because there were too many. The same
            request may be made again later.
        sender_only: whether only messages from the same sending address are throttled, not all messages.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status_code: int | None = None,
        retry_after: timedelta | None = None,
        throttled: bool = False,
        sender_only: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status_code = status_code
        self.retry_after = retry_after
        self.throttled = throttled
        self.sender_only = sender_only


class NotReachedError(ProviderError):
    pass


class TemporaryError(ProviderError):
    pass


class UnknownOutcomeError(ProviderError):
    pass


class RejectedError(ProviderError):
    pass


class CredentialsError(ProviderError):
    pass


@dataclass(frozen=True, slots=True)
class File:
    """An attachment that was fetched: a name without a path, a media type without parameters, the bytes."""

    name: str
    type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MediaCredentials:
    """The credentials with which the media of inbound messages are fetched from a provider.

    Attributes:
        url: any URL of the origin that they are for.
        headers: are sent to no other origin.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A POST request to a provider."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @classmethod
    def json(cls, url: str, payload: object, headers: Mapping[str, str]) -> Self:
        return cls(url, {"Content-Type": "application/json", **headers}, orjson.dumps(payload))

    @classmethod
    def form(cls, url: str, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Self:
        """Create a form request, in which a field may have a list of values."""
        content_type = {"Content-Type": "application/x-www-form-urlencoded"}
        return cls(url, {**content_type, **headers}, urlencode(fields, doseq=True).encode())


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A provider's response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - JSON may be anything
        """Parse the body, even if it is in another encoding than UTF-8 or has a byte order mark.

        Raises:
            ValueError: it is not JSON, or nested too deeply.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            encoding = json.detect_encoding(self.body)
        try:
            return json.loads(self.body.decode(encoding, errors="replace"))
        except RecursionError as exc:
            raise ValueError("the body is nested too deeply") from exc

    def field(self, name: str) -> object:
        """Return a field of the JSON object in the body, or None if there is none."""
        try:
            value = self.json()
        except ValueError:
            return None
        return value.get(name) if isinstance(value, dict) else None


class Adapter(ABC, Generic[S]):
    """Builds the requests that send messages through a provider, and reads the responses. It does no I/O.

    Attributes:
        honours_idempotency_keys: whether a repeated request with the same key does not cause a second
            message.
        takes_files: whether the provider accepts attachments as files, rather than as URLs.
        sends_to_groups: whether the provider sends one message to a group, whose members all see each other.
        secrets: texts that no error may contain, even if the provider repeats them.
    """

    honours_idempotency_keys: ClassVar[bool]
    takes_files: ClassVar[bool] = False
    sends_to_groups: ClassVar[bool] = False
    secrets: Sequence[str] = ()

    @abstractmethod
    def __init__(self, settings: S) -> None:
        """Prepare for sending.

        Raises:
            ValueError: the settings are inconsistent; the message names the variables.
        """

    @classmethod
    def can_send(cls, message: Message) -> bool:
        """Return whether the provider can send such a message at all."""
        return cls.sends_to_groups or not message.recipients

    @abstractmethod
    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:
        """Build the request that sends a message, with the id of the message as the idempotency key.

        It may be called in any thread, and takes linear time, since anybody may have written the message.

        Args:
            message: the message, with its attachments as URLs.
            files: the same attachments, if the provider accepts files.
        """

    @abstractmethod
    def message_id(self, answer: HttpAnswer) -> object:
        """Return the provider's message id from a 2xx response; it has to be a short text."""

    def explain(self, error: ProviderError, answer: HttpAnswer) -> ProviderError:  # noqa: ARG002 - for adapters
        """Return a more precise error for a response that is not a 2xx."""
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[S]):
    """A provider, as the registry lists it.

    Attributes:
        name: as it appears in settings, events and metrics; of `[A-Za-z0-9_-]`.
        channel: the channel that it serves.
        settings: its settings, which both services read from the environment.
        required_to_send: the fields of the settings that sending needs.
        adapter: sends messages.
        webhooks: receive messages and receipts.
        signature: how the provider signs its webhooks.
        opt_out_group: returns the name of the group in which all our messages are sent, for some settings, if
            recipients opt out of such a group at the provider rather than of one address.
        media_credentials: returns the credentials that the media of inbound messages need, for some settings.
    """

    name: str
    channel: Channel
    settings: type[S]
    required_to_send: Sequence[str] = ()
    adapter: type[Adapter[S]]
    webhooks: Sequence[Webhook] = ()
    signature: SignatureScheme[S] | None = None
    opt_out_group: Callable[[S], str | None] = lambda _: None
    media_credentials: Callable[[S], MediaCredentials | None] = lambda _: None

    def __post_init__(self) -> None:
        if self.webhooks and self.signature is None:
            raise ValueError(f"the webhooks of {self.name} need a signature, or anybody could post to them")
