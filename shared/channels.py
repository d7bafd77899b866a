"""Channels, and everything that differs from one channel to another.

A channel is added here: a member of `Channel`, its message types, and its `ChannelRules`. The rest of the
code uses the rules and never checks for a particular channel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.addresses import Address, parse_email, read_email
from shared.phone_numbers import parse_phone, read_phone
from shared.status import Status
from shared.text import letters_of


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class MessageType(StrEnum):
    SMS = "sms"
    MMS = "mms"
    EMAIL = "email"

    @property
    def channel(self) -> "Channel":
        return _CHANNEL_OF[self]


class Channel(StrEnum):
    """The medium of a message. SMS and MMS are one channel, since they share numbers and conversations."""

    SMS = "sms"
    EMAIL = "email"

    @property
    def rules(self) -> "ChannelRules":
        return RULES[self]

    def parse_address(self, text: str, *, default_region: str) -> Address:
        """Normalise an address of this channel.

        Args:
            text: as a person or a provider wrote it.
            default_region: ISO 3166 country of phone numbers in national form.

        Raises:
            InvalidAddressError: the text is not an address of this channel.
        """
        return self.rules.parse_address(text, default_region)

    def read_address(self, text: str, *, default_region: str) -> Address | None:
        """Normalise an address of this channel that a provider has delivered.

        Returns:
            The address as it was written if it cannot be normalised, and None if it is missing or withheld.
        """
        return self.rules.read_address(text, default_region)

    def receipt_status(self, word: str) -> Status:
        """Return the status that a word in a receipt stands for, ignoring its case and punctuation."""
        return self.rules.receipt_statuses.get(letters_of(word), Status.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """The rules of a channel.

    Attributes:
        types: the message types that belong to the channel.
        parse_address: normalises an address; takes the text and the default region.
        read_address: the same for what a provider has delivered; see `Channel.read_address`.
        accepts: returns whether a text, as it appears in a URL or a setting, is meant as an address of the
            channel. The channels are asked in the order of their declaration.
        max_body: characters in the body of an outbound message; None if only the size of a request is
            limited.
        has_keywords: whether replies such as STOP and START opt the sender out and in.
        is_threaded: whether an outbound message names the newest inbound one as its parent.
        may_return: whether a message can be returned after its delivery was reported.
        receipt_statuses: the words used in delivery receipts, in lower case and without spaces or
            punctuation, and the status that each stands for.
        default_provider: the provider that sends unless the settings name others.
    """

    types: frozenset[MessageType]
    parse_address: Callable[[str, str], Address]
    read_address: Callable[[str, str], Address | None]
    accepts: Callable[[str], bool]
    max_body: int | None
    has_keywords: bool
    is_threaded: bool
    may_return: bool
    receipt_statuses: Mapping[str, Status]
    default_provider: str


# The words of SMPP 3.4 (in full and as in a receipt's `stat`), of the larger providers, and their spellings.
_WORDS = {
    Status.SENT: """
        accepted acceptd queued sending sent submitted buffered enroute intransit scheduled pending processed
        processing deferred delayed softbounce softbounced partiallydelivered
    """,
    Status.DELIVERED: "delivered delivrd deliveredtohandset handsetdelivered read seen opened clicked",
    Status.UNDELIVERED: """
        undelivered undeliv undeliverable notdelivered bounce bounced hardbounce hardbounced rejected rejectd
        reject refused blocked dropped expired deliveryfailed deliveryfailure
    """,
    Status.FAILED: "failed failure error",
    Status.CANCELED: "canceled cancelled deleted",
}
_RECEIPT_STATUSES = {word: status for status, words in _WORDS.items() for word in words.split()}

RULES: Mapping[Channel, ChannelRules] = {
    Channel.SMS: ChannelRules(
        types=frozenset({MessageType.SMS, MessageType.MMS}),
        parse_address=parse_phone,
        read_address=read_phone,
        accepts=lambda text: "@" not in text,
        max_body=1_600,  # what the providers accept
        has_keywords=True,
        is_threaded=False,
        may_return=False,
        receipt_statuses=_RECEIPT_STATUSES,
        default_provider="generic_sms",
    ),
    Channel.EMAIL: ChannelRules(
        types=frozenset({MessageType.EMAIL}),
        parse_address=lambda text, _: parse_email(text),
        read_address=lambda text, _: read_email(text),
        accepts=lambda text: "@" in text,
        max_body=None,
        has_keywords=False,  # e-mails have links for this, and their words have no special meaning
        is_threaded=True,
        may_return=True,
        receipt_statuses=_RECEIPT_STATUSES,
        default_provider="generic_email",
    ),
}

_CHANNEL_OF = {type_: channel for channel, rules in RULES.items() for type_ in rules.types}


def channel_of_address(text: str) -> Channel:
    """Return the channel that an address in a URL or a setting is meant for, whether it is valid or not."""
    return next(channel for channel, rules in RULES.items() if rules.accepts(text))
