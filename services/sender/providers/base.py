"""What the sender knows of a provider: that it takes a message, and in which ways it may not.

    ProviderError
    ├── NotReachedError       no connection was made, so it has nothing: try again at once
    ├── TemporaryError        it asks to be tried later
    ├── UnknownOutcomeError   it was asked and did not answer: it may have the message, or not
    ├── RejectedError         it will never take this message
    └── CredentialsError      it does not take anything from us

An adapter reports which of them it met; what follows from it is the sender's business.
"""

from datetime import timedelta
from typing import ClassVar, Protocol, TypeGuard

from shared.channels import Channel
from shared.errors import ServiceError
from shared.events import Message


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


class Provider(Protocol):
    """An adapter to a provider.

    Attributes:
        name: as it stands in events and metrics; of `[A-Za-z0-9_-]`.
        channel: what it carries.
        honours_idempotency_keys: whether a request with a key that it has seen is not a second message.
    """

    name: ClassVar[str]
    channel: ClassVar[Channel]
    honours_idempotency_keys: ClassVar[bool]

    async def send(self, message: Message) -> str:
        """Hand over the message, with its id as the idempotency key.

        Returns:
            The provider's own id of the message.

        Raises:
            ProviderError: one of its kinds.
        """
        ...
