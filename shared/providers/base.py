"""What the sender knows of a provider: that it takes a message, and in which ways it may not.

    ProviderError
    ├── NotReachedError       no connection was made, so it has nothing: try again at once
    ├── TemporaryError        it asks to be tried later
    ├── UnknownOutcomeError   it was asked and did not answer: it may have the message, or not
    ├── RejectedError         it will never take this message
    └── CredentialsError      it does not take anything from us

An adapter reports which of them it met; what follows from it is the sender's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeGuard

import httpx

from shared.channels import Channel
from shared.errors import ServiceError
from shared.events import Message
from shared.settings import Settings


class ProviderError(ServiceError):
    """The provider did not take the message.

    Attributes:
        code: short and stable, such as `http_503`.
        status_code: of the HTTP answer, if there was one.
        retry_after: how long the provider asks to be left alone.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status_code: int | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status_code = status_code
        self.retry_after = retry_after


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


_LONGEST_ID = 255


def is_provider_id(value: object) -> TypeGuard[str]:
    """Tell whether something in an answer can be a provider's id of a message."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable()


@dataclass(frozen=True, slots=True)
class File:
    """An attachment that was fetched: a name without a path, a media type without parameters, the bytes."""

    name: str
    type: str
    content: bytes


class Provider(Protocol):
    """An adapter to a provider.

    Attributes:
        name: as it stands in settings, events and metrics; of `[A-Za-z0-9_-]`.
        channel: what it carries.
        settings: what it needs from the environment, in upper case there; read if a route names it.
        honours_idempotency_keys: whether a request with a key that it has seen is not a second message.
        takes_files: whether it wants attachments as files, and not as URLs.
    """

    name: ClassVar[str]
    channel: ClassVar[Channel]
    settings: ClassVar[type[Settings]]
    honours_idempotency_keys: ClassVar[bool]
    takes_files: ClassVar[bool]

    # Each adapter has settings of its own kind, which no signature for all of them can tell.
    def __init__(self, client: httpx.AsyncClient, settings: Any) -> None: ...  # noqa: ANN401

    async def send(self, message: Message, files: Sequence[File]) -> str:
        """Hand over the message, with its id as the idempotency key.

        Args:
            message: with its attachments as URLs.
            files: the same attachments, for a provider that takes files.

        Returns:
            The provider's own id of the message.

        Raises:
            ProviderError: one of its kinds.
        """
        ...
