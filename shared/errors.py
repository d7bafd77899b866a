"""Errors that the services share.

    ServiceError
    ├── NotNowError             the world is in the way: the same thing may work later
    │   ├── BusUnavailableError
    │   └── DatabaseUnavailableError
    └── BadMessageError         the message itself is at fault: it will never work

Whoever handles messages waits for what is not now, and moves a bad message to the dead letters.
"""


class ServiceError(Exception):
    """Base of the errors that are raised on purpose."""


class NotNowError(ServiceError):
    """Something outside is away; nothing is wrong with the message."""


class BusUnavailableError(NotNowError):
    """NATS did not acknowledge in time, or refused for lack of room."""


class DatabaseUnavailableError(NotNowError):
    """PostgreSQL did not answer in time."""


class BadMessageError(ServiceError):
    """A message that no repetition will make any better.

    Attributes:
        code: short and stable, for programs and filters.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
