"""Errors that the services share.

    ServiceError
    ├── UnavailableError        a dependency is unavailable: the same operation may succeed later
    │   ├── BusUnavailableError
    │   ├── DatabaseUnavailableError
    │   └── MediaStoreUnavailableError
    └── BadMessageError         the message itself is at fault: it can never be processed

A message handler waits while a dependency is unavailable, and dead-letters a bad message.
"""


class ServiceError(Exception):
    """Base class of the errors that the services raise on purpose."""


class UnavailableError(ServiceError):
    """A dependency is unavailable; nothing is wrong with the message."""


class BusUnavailableError(UnavailableError):
    """NATS did not acknowledge in time, or rejected a message, for example because a stream is full."""


class DatabaseUnavailableError(UnavailableError):
    """PostgreSQL did not answer in time."""


class MediaStoreUnavailableError(UnavailableError):
    """The store of media did not answer, or refused a file, for example because its disk is full."""


class BadMessageError(ServiceError):
    """A message that can never be processed, no matter how often it is retried.

    Attributes:
        code: short and stable, for programs and filters.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
