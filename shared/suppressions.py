"""Opt-outs and opt-ins: the changes that the suppression list consists of."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field

from shared.channels import Channel
from shared.ids import SuppressionKey, suppression_key
from shared.keywords import Keyword
from shared.message import FrozenModel, IncomingMessage
from shared.text import single_line

MAX_SUPPRESSION_DETAIL = 500
"""Characters."""


class SuppressionState(StrEnum):
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"


class SuppressionSource(StrEnum):
    """The cause of an opt-out or an opt-in.

    Attributes:
        KEYWORD: a text message such as STOP.
        PROVIDER: the provider refused a message because it knew of an opt-out.
        BOUNCE: the mailbox does not exist.
        UNSUBSCRIBE, RESUBSCRIBE: a link in an e-mail, ours or the provider's.
        UNREADABLE: the change cannot be read. It counts as an opt-out, and is never recorded.
    """

    KEYWORD = "keyword"
    PROVIDER = "provider"
    BOUNCE = "bounce"
    SPAM_REPORT = "spam_report"
    UNSUBSCRIBE = "unsubscribe"
    RESUBSCRIBE = "resubscribe"
    API = "api"
    UNREADABLE = "unreadable"


class SuppressionChange(FrozenModel):
    """A recipient's opt-out or opt-in.

    Attributes:
        ours: key of our address that the change concerns; None for all our addresses.
        theirs: key of the recipient's address.
        detail: the text message, the provider's reason, or that of the API's caller.
        by: name of the caller's API key.
        cause: identifies what caused the change, such as a message, if its report has no time of its own and
            may come again later.
    """

    channel: Channel
    ours: str | None = None
    theirs: str
    state: SuppressionState
    source: SuppressionSource
    detail: str | None = Field(default=None, max_length=MAX_SUPPRESSION_DETAIL)
    by: str | None = None
    cause: str | None = None
    occurred_at: AwareDatetime

    @property
    def key(self) -> SuppressionKey:
        return suppression_key(self.channel, self.ours, self.theirs)

    def supersedes(self, other: Self) -> bool:
        """Return whether this change replaces another: the later one wins, or else the opt-out."""
        return self._order > other._order

    @property
    def _order(self) -> tuple[datetime, bool]:
        return self.occurred_at, self.state is SuppressionState.OPTED_OUT


def change_by_keyword(incoming: IncomingMessage) -> SuppressionChange | None:
    """Return the change that the author of a message requests by a keyword, if there is one."""
    message, keyword = incoming.message, incoming.keyword
    if keyword is None or keyword is Keyword.HELP:
        return None
    return SuppressionChange(
        channel=message.channel,
        ours=message.our_key,
        theirs=message.their_key,
        state=SuppressionState.OPTED_OUT if keyword is Keyword.STOP else SuppressionState.OPTED_IN,
        source=SuppressionSource.KEYWORD,
        detail=single_line(message.body, limit=MAX_SUPPRESSION_DETAIL),
        cause=str(message.id),
        # A change from the future would prevail over all that follow.
        occurred_at=min(message.timestamp, message.created_at),
    )
