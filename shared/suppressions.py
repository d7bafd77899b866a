"""Opt-outs and opt-ins: the changes that the suppression list consists of."""

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field

from shared.channels import Channel
from shared.ids import SuppressionKey, suppression_key
from shared.keywords import Keyword
from shared.message import FrozenModel, IncomingMessage, IncomingReceipt
from shared.status import Status
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
        SPAM_REPORT: the recipient reported a message as spam.
        UNSUBSCRIBE, RESUBSCRIBE: a link in an e-mail, ours or the provider's.
        API: a request to the API.
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
        ours: key of our address that the change concerns, or the name of an opt-out group, which several of
            our addresses share at a provider; None for all our addresses.
        theirs: key of the recipient's address.
        detail: the text message, the provider's reason, or the caller's reason.
        by: name of the caller's API key.
        cause: identifies what caused the change, such as a message, if the change is dated by the arrival of
            its report, which may come again later.
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


def changes_by_keyword(incoming: IncomingMessage) -> list[SuppressionChange]:
    """Return the changes that the author of a message requests by a keyword.

    They concern our address that the message was sent to, and its opt-out group. In a message to a group, it
    is not known which recipient is ours, so they concern all of them. They are dated by the arrival of the
    message, since its own time may be wrong.
    """
    message, keyword = incoming.message, incoming.keyword
    if keyword is None or keyword is Keyword.HELP:
        return []
    scopes = [*message.recipient_keys, *filter(None, [incoming.opt_out_group])]
    return [
        SuppressionChange(
            channel=message.channel,
            ours=ours,
            theirs=message.from_key,
            state=SuppressionState.OPTED_OUT if keyword is Keyword.STOP else SuppressionState.OPTED_IN,
            source=SuppressionSource.KEYWORD,
            detail=single_line(message.body, limit=MAX_SUPPRESSION_DETAIL),
            cause=str(message.id),
            occurred_at=message.created_at,
        )
        for ours in scopes
    ]


def change_by_bounce(receipt: IncomingReceipt, recipient: str, *, at: datetime) -> SuppressionChange:
    """Return the opt-out of a recipient whose mailbox does not exist, or who has reported a message as spam.

    Args:
        receipt: the provider's report.
        recipient: the key of the recipient's address.
        at: when the report arrived.
    """
    return SuppressionChange(
        channel=receipt.channel,
        theirs=recipient,
        state=SuppressionState.OPTED_OUT,
        # A complaint says nothing about the delivery, so its status is unknown.
        source=SuppressionSource.SPAM_REPORT
        if receipt.status is Status.UNKNOWN
        else SuppressionSource.BOUNCE,
        detail=receipt.error_code,
        cause=f"{receipt.provider} {receipt.provider_message_id} {receipt.key}",
        occurred_at=at,
    )


def latest_changes(changes: Iterable[SuppressionChange]) -> Collection[SuppressionChange]:
    """Return the changes that apply after all of the given ones: one for each pair."""
    latest: dict[SuppressionKey, SuppressionChange] = {}
    for change in changes:
        known = latest.get(change.key)
        if known is None or change.supersedes(known):
            latest[change.key] = change
    return latest.values()
