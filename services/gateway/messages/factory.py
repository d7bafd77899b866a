"""Makes messages and receipts out of requests: plain functions of their arguments."""

from datetime import datetime
from typing import Any

from shared.validation import on_one_line
from services.gateway.schemas import Receipt, Send, Webhook
from shared.addresses import key_of
from shared.channels import Direction, MessageType
from shared.events import (
    MAX_SUPPRESSION_DETAIL,
    SuppressionChange,
    SuppressionSource,
    SuppressionState,
    DeliveryReceipt,
    Message,
    ReceiptReceived,
)
from shared.ids import MessageId, conversation_key, event_id, inbound_message_id
from shared.keywords import Keyword


def outbound_message(send: Send, *, id_: MessageId, now: datetime) -> Message:
    return _message(send, id_=id_, direction=Direction.OUTBOUND, now=now, send_at=send.send_at)


def inbound_message(webhook: Webhook, *, now: datetime) -> Message:
    """Make the message of a webhook; each delivery of the webhook makes the same one."""
    return _message(
        webhook,
        id_=inbound_message_id(webhook.provider, webhook.provider_message_id),
        direction=Direction.INBOUND,
        now=now,
        provider=webhook.provider,
        provider_message_id=webhook.provider_message_id,
        email_id=webhook.email_id,
    )


def change_by_keyword(message: Message, keyword: Keyword | None) -> SuppressionChange | None:
    """Make the change that the author of a message asks for by a keyword, if one does."""
    if keyword is None or keyword is Keyword.HELP:
        return None
    channel = message.channel
    return SuppressionChange(
        channel=channel,
        ours=key_of(message.to, channel),
        theirs=key_of(message.from_, channel),
        state=SuppressionState.OPTED_OUT if keyword is Keyword.STOP else SuppressionState.OPTED_IN,
        source=SuppressionSource.KEYWORD,
        detail=on_one_line(message.body, limit=MAX_SUPPRESSION_DETAIL),
        # One from the future would stand in the way of all that follow.
        occurred_at=min(message.timestamp, message.created_at),
    )


def receipt_event(receipt: Receipt, raw: object, *, now: datetime) -> ReceiptReceived:
    """Make the event of a receipt; a provider that repeats itself makes the same one."""
    message = inbound_message_id(receipt.provider, receipt.provider_message_id)
    data = DeliveryReceipt(
        channel=receipt.channel,
        provider=receipt.provider,
        provider_message_id=receipt.provider_message_id,
        message_id=receipt.message_id,
        status=receipt.status,
        error_code=receipt.error_code,
        error_detail=receipt.error_detail,
        occurred_at=receipt.timestamp or now,
        raw=raw,
    )
    return ReceiptReceived.of(data, id_=event_id(message, "receipt", receipt.key), time=now)


def _message(
    content: Send | Webhook,
    *,
    id_: MessageId,
    direction: Direction,
    now: datetime,
    **more: Any,  # noqa: ANN401 - fields of one direction only
) -> Message:
    participants = sorted({content.from_.key, content.to.key})
    return Message(
        id=id_,
        conversation_key=conversation_key(participants),
        direction=direction,
        type=MessageType(content.type),
        from_=content.from_.spelling,
        to=content.to.spelling,
        participants=participants,
        subject=content.subject,
        body=content.body or "",
        attachments=content.attachments or [],
        timestamp=content.timestamp or now,
        created_at=now,
        **more,
    )
