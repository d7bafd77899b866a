"""The words for what is sent: channels, types, directions."""

from enum import StrEnum


class Channel(StrEnum):
    """A way to reach people; SMS and MMS share one, since they share numbers and conversations."""

    SMS = "sms"
    EMAIL = "email"


class MessageType(StrEnum):
    SMS = "sms"
    MMS = "mms"
    EMAIL = "email"

    @property
    def channel(self) -> Channel:
        return Channel.EMAIL if self is MessageType.EMAIL else Channel.SMS


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"
