"""SendGrid's Event Webhook: delivery receipts, opt-outs and opt-ins."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from shared.channels import Channel
from shared.ids import MessageId
from shared.message import IncomingReceipt
from shared.providers.sendgrid.inbound import NAME
from shared.providers.webhooks import (
    InvalidWebhookError,
    Webhook,
    WebhookContent,
    WebhookRequest,
    json_of,
    parse_own_id,
    storable,
    validate,
)
from shared.status import Status
from shared.suppressions import (
    MAX_SUPPRESSION_DETAIL,
    SuppressionChange,
    SuppressionSource,
    SuppressionState,
)
from shared.text import single_line
from shared.times import read_time
from shared.validation import MAX_BODY, Email, Fault, ProviderId

_MAX_EVENTS = 1024 * 1024
"""Bytes; SendGrid collects up to 768 KB."""

_MAX_DETAIL = 500
_MAX_CODE = 64

_SUFFIX = re.compile(r"\.(?:filter|recvd|ismtpd|geopod|canary)")
"""The beginning of what SendGrid appends to the id in its response: the name of a server."""

_GROUP = re.compile(r"[1-9][0-9]{0,14}")

_STATUSES = {
    "delivered": Status.DELIVERED,
    "bounce": Status.UNDELIVERED,
    "dropped": Status.UNDELIVERED,
}
"""The events that change the status of a message."""

_NOT_KEPT = {
    *("processed", "deferred", "open", "click"),
    *("spamreport", "unsubscribe", "group_unsubscribe", "group_resubscribe"),
    "account_status_change",
}
"""The other events that SendGrid documents. Events of an unknown kind are kept in the history."""

_SOURCES = {
    "bounce": SuppressionSource.BOUNCE,
    "spamreport": SuppressionSource.SPAM_REPORT,
    "unsubscribe": SuppressionSource.UNSUBSCRIBE,
    "group_unsubscribe": SuppressionSource.UNSUBSCRIBE,
    "group_resubscribe": SuppressionSource.RESUBSCRIBE,
}
"""The events that change the suppression list."""

_SOURCES_IN_GROUPS = {SuppressionSource.UNSUBSCRIBE, SuppressionSource.RESUBSCRIBE}
"""The causes that concern an unsubscribe group, if the event names one and is not about all groups."""

_SOURCES_OF_DROPS = {
    "bounced address": SuppressionSource.BOUNCE,
    "spam reporting address": SuppressionSource.SPAM_REPORT,
    "unsubscribed address": SuppressionSource.UNSUBSCRIBE,
}
"""The reasons for drops that reveal an opt-out which SendGrid already knew about."""


class _ReceiptEvent(BaseModel):
    model_config = ConfigDict(strict=True)

    sg_message_id: ProviderId
    message_id: Annotated[MessageId | None, PlainValidator(parse_own_id)] = None


class _Recipient(BaseModel):
    email: Email


class AcceptedEvents(BaseModel):
    """The acknowledgement of events that were stored."""

    receipts: int = Field(description="The number of events that were stored as delivery receipts")
    suppressions: int = Field(description="The number of events that were opt-outs or opt-ins")
    invalid: int = Field(description="The number of invalid events, which are kept as a dead letter")


def parse_events(request: WebhookRequest) -> WebhookContent:
    """Parse the events, each independently of the others.

    Raises:
        UnreadableWebhookError: the body is not JSON.
        InvalidWebhookError: the body is not an array.
    """
    events = json_of(request)
    if not isinstance(events, list):
        raise InvalidWebhookError(Fault("body", "must be a JSON array"))
    content = WebhookContent()
    invalid = []
    for event in events:
        try:
            read = _readable(event)
            try:
                if change := _change_of(read, request):
                    content.suppressions.append(change)
            finally:
                if receipt := _receipt_of(read, request):
                    content.receipts.append(receipt)
        except InvalidWebhookError as exc:
            content.invalid.append(exc.faults)
            invalid.append(event)
    content.invalid_parts = json.dumps(invalid).encode() if invalid else None
    return content


def _readable(event: object) -> Mapping[str, Any]:
    """Return an event with its kind in lower case."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise InvalidWebhookError(Fault("event", "is required"))
    clean = storable(event)
    if len(json.dumps(clean, ensure_ascii=False).encode()) > MAX_BODY:
        raise InvalidWebhookError(Fault("event", "is too large"))
    return {**clean, "event": clean["event"].strip().lower()}


def _time_of(event: Mapping[str, Any], request: WebhookRequest) -> datetime:
    """Return when an event happened; it counts from its arrival if its time is invalid or in the future."""
    return min(read_time(event.get("timestamp")) or request.received_at, request.received_at)


def _receipt_of(event: Mapping[str, Any], request: WebhookRequest) -> IncomingReceipt | None:
    word = event["event"]
    if word in _NOT_KEPT or _concerns_copy(event):
        return None
    status = _STATUSES.get(word, Status.UNKNOWN)
    # Late bounces may lack sg_message_id.
    given = event.get("sg_message_id")
    sent_id = _sent_id(given if given and isinstance(given, str) else event.get("message_id"))
    fields = validate(
        {**event, "sg_message_id": sent_id}, _ReceiptEvent, default_region=request.default_region
    )
    event_id = event.get("sg_event_id")
    is_identified = isinstance(event_id, str) and event_id
    has_code = status in {Status.UNDELIVERED, Status.UNKNOWN}
    given_code = event.get("status") if status is Status.UNDELIVERED else None
    code = single_line(str(given_code or word), limit=_MAX_CODE)
    detail = single_line(str(event.get("reason") or ""), limit=_MAX_DETAIL) or None
    return IncomingReceipt(
        channel=Channel.EMAIL,
        provider=NAME,
        provider_message_id=fields.sg_message_id,
        message_id=fields.message_id,
        key=str(event_id) if is_identified else f"{status} {code}" if status is Status.UNKNOWN else status,
        status=status,
        error_code=code if has_code else None,
        error_detail=detail if has_code else None,
        occurred_at=_time_of(event, request),
        raw=event,
    )


def _concerns_copy(event: Mapping[str, Any]) -> bool:
    """Return whether an event is about a recipient in cc or bcc, whose copy has no status."""
    recipient = event.get("recipient")
    return recipient is not None and str(event.get("email")).casefold() != str(recipient).casefold()


def _sent_id(value: object) -> object:
    """Return the part of an event's id that the response to our request contained; it may have dots."""
    if not isinstance(value, str):
        return value
    suffix = _SUFFIX.search(value)
    return value[: suffix.start()] if suffix else value.partition(".")[0]


def _change_of(event: Mapping[str, Any], request: WebhookRequest) -> SuppressionChange | None:
    """Return the opt-out or opt-in of an event.

    It applies to all our addresses, as at SendGrid, or to the e-mails of an unsubscribe group.
    """
    source = _source_of(event)
    if source is None:
        return None
    recipient = validate(event, _Recipient, default_region=request.default_region)
    concerns_group = source in _SOURCES_IN_GROUPS and event["event"] != "unsubscribe"
    group = opt_out_group_of(event.get("asm_group_id")) if concerns_group else None
    is_resubscription = source is SuppressionSource.RESUBSCRIBE
    if is_resubscription and group is None:
        raise InvalidWebhookError(Fault("asm_group_id", "is required"))
    return SuppressionChange(
        channel=Channel.EMAIL,
        ours=group,
        theirs=recipient.email.key,
        state=SuppressionState.OPTED_IN if is_resubscription else SuppressionState.OPTED_OUT,
        source=source,
        detail=single_line(str(event.get("reason") or event["event"]), limit=MAX_SUPPRESSION_DETAIL),
        occurred_at=_time_of(event, request),
    )


def opt_out_group_of(group: object) -> str | None:
    """Return the opt-out group of one of SendGrid's unsubscribe groups."""
    return f"{NAME}:{group}" if _GROUP.fullmatch(str(group)) else None


def _source_of(event: Mapping[str, Any]) -> SuppressionSource | None:
    word = event["event"]
    if word == "bounce" and event.get("type") == "blocked":
        return None  # the recipient's server rejected it temporarily; the mailbox exists
    if word == "dropped":
        return _SOURCES_OF_DROPS.get(str(event.get("reason")).casefold())
    return _SOURCES.get(word)


_EVENTS: Mapping[str, Any] = {
    "type": "array",
    "items": {},
    "examples": [
        [
            {
                "event": "delivered",
                "timestamp": 1730469600,
                "sg_event_id": "event-1",
                "sg_message_id": "message-1.recvd-1",
                "message_id": "0198c0de-0000-7000-8000-000000000001",
            }
        ]
    ],
}

EVENTS = Webhook(
    name="receive_sendgrid_events",
    path="sendgrid/events",
    summary="Receive events from SendGrid's Event Webhook",
    body=_EVENTS,
    parse=parse_events,
    respond=lambda content: AcceptedEvents(
        receipts=len(content.receipts),
        suppressions=len(content.suppressions),
        invalid=len(content.invalid),
    ),
    response=AcceptedEvents,
    max_size=_MAX_EVENTS,
)
