"""Events as the services publish them, the same ones at each call."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared import events
from shared.channels import Channel, Direction, MessageType
from shared.dead_letters import DeadLetter, DeadLetterResolution, Origin, Resolution
from shared.events import Event
from shared.ids import MessageId, dead_letter_id, inbound_message_id
from shared.media import MediaReport, MediaStatus
from shared.message import (
    AttemptError,
    DeliveryRequest,
    IncomingMessage,
    IncomingReceipt,
    Message,
    StatusReport,
)
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS = "+12016660001"
THEIRS = "+18045550001"
PROVIDER = "generic_sms"


def message(number: int = 0, *, from_: str = OURS, to: str = THEIRS, **fields: Any) -> Message:  # noqa: ANN401 - any field of a message
    """Return the outbound message of this number."""
    written_at = NOON + timedelta(seconds=number)
    defaults = {
        "id": inbound_message_id("tests", str(number)),
        "attachments": ["https://example.org/a.png", 'odd, "quoted" {name}'],
        "timestamp": written_at,
        "created_at": written_at + timedelta(milliseconds=5),
    }
    return messages.message(from_=from_, to=to, **{**defaults, **fields})


def accepted(message: Message, *, generation: int = 0) -> Event[DeliveryRequest]:
    expires_at = message.created_at + timedelta(hours=4)
    request = DeliveryRequest(message=message, generation=generation, expires_at=expires_at)
    return events.message_accepted(request, time=message.created_at + timedelta(minutes=generation))


def received(number: int = 0, *, from_: str = THEIRS, to: str = OURS) -> Event[IncomingMessage]:
    """Return the event of the inbound message of this number."""
    written_at = NOON + timedelta(seconds=number)
    incoming = IncomingMessage.of(
        provider=PROVIDER,
        provider_message_id=f"in-{number}",
        from_=messages.address(from_),
        to=messages.address(to),
        type=MessageType.SMS,
        body="Hello",
        attachments=[],
        timestamp=written_at,
        created_at=written_at + timedelta(milliseconds=5),
        raw={"body": "Hello"},
    )
    return events.message_received(incoming)


def status_changed(
    message_id: MessageId,
    status: Status,
    *,
    generation: int = 0,
    attempt: int = 1,
    in_doubt: bool = False,
) -> Event[StatusReport]:
    failed = status in {Status.RETRYING, Status.FAILED}
    error = AttemptError(attempt=attempt, code="provider_error", detail="503", at=NOON) if failed else None
    report = StatusReport(
        message_id=message_id,
        channel=Channel.SMS,
        status=status,
        generation=generation,
        attempt=attempt,
        provider=PROVIDER,
        provider_message_id=_provider_message_id(message_id) if status is Status.SENT else None,
        error=error,
        in_doubt=in_doubt,
        next_attempt_at=NOON if status is Status.RETRYING else None,
    )
    return events.status_changed(report, time=NOON + timedelta(minutes=attempt), source="/sender")


def receipt(message_id: MessageId, status: Status = Status.DELIVERED) -> Event[IncomingReceipt]:
    receipt = IncomingReceipt(
        channel=Channel.SMS,
        provider=PROVIDER,
        provider_message_id=_provider_message_id(message_id),
        key=status,
        status=status,
        error_code="30003" if status is Status.UNDELIVERED else None,
        occurred_at=NOON + timedelta(hours=1),
        raw={},
    )
    return events.receipt_received(receipt, time=NOON)


def dead_letter(message: Message) -> Event[DeadLetter]:
    dead_letter = DeadLetter(
        id=dead_letter_id(message.id, 0),
        direction=Direction.OUTBOUND,
        channel=Channel.SMS,
        reason="attempts_exhausted",
        detail="all 8 attempts failed",
        message_id=message.id,
        attempts=8,
        request=accepted(message).data,
        origin=Origin(stream="OUTBOUND", sequence=1, subject="outbound.sms.1.x", consumer="sender-sms-00"),
    )
    return events.dead_letter_created(dead_letter, source="/sender", time=NOON)


def resolved(
    dead_letter: Event[DeadLetter], resolution: Resolution, *, reason: str | None = None
) -> Event[DeadLetterResolution]:
    data = DeadLetterResolution(
        dead_letter_id=dead_letter.data.id, resolution=resolution, reason=reason, by="support"
    )
    return events.dead_letter_resolved(data, time=NOON + timedelta(hours=2))


def suppression_changed(
    minute: int, state: SuppressionState, *, ours: str | None = OURS
) -> Event[SuppressionChange]:
    """Return the event of the change at this minute."""
    change = SuppressionChange(
        channel=Channel.SMS,
        ours=ours,
        theirs=THEIRS,
        state=state,
        source=SuppressionSource.KEYWORD,
        detail="stop",
        occurred_at=NOON + timedelta(minutes=minute),
    )
    return events.suppression_changed(change)


def delivered(number: int) -> list[Event[Any]]:
    """Return the events of a message that is retried, sent and delivered, and of the reply to it."""
    outbound = message(number)
    return [
        accepted(outbound),
        status_changed(outbound.id, Status.RETRYING),
        status_changed(outbound.id, Status.SENT, attempt=2),
        receipt(outbound.id),
        received(number),
    ]


def of_all_kinds() -> list[Event[Any]]:
    """Return the events of several messages, which include a replay, resolutions and opt-outs."""
    replayed, discarded = message(1), message(3)
    return [
        *delivered(0),
        accepted(replayed),
        status_changed(replayed.id, Status.FAILED),
        dead_letter(replayed),
        accepted(replayed, generation=1),
        status_changed(replayed.id, Status.SENT, generation=1),
        resolved(dead_letter(replayed), Resolution.REPLAYED),
        receipt(replayed.id, Status.UNDELIVERED),
        dead_letter(discarded),
        resolved(dead_letter(discarded), Resolution.DISCARDED, reason="a test"),
        accepted(message(2, to="+18045550002")),
        suppression_changed(0, SuppressionState.OPTED_OUT),
        suppression_changed(1, SuppressionState.OPTED_IN),
        suppression_changed(2, SuppressionState.OPTED_OUT, ours=None),
        *mms(),
    ]


def mms() -> list[Event[Any]]:
    """Return the event of an MMS, and the reports on its files: the first one was found later."""
    incoming = IncomingMessage.of(
        provider=PROVIDER,
        provider_message_id="mms",
        from_=messages.address(THEIRS),
        to=messages.address(OURS),
        type=MessageType.MMS,
        body="",
        attachments=["https://example.com/a.png", "https://example.com/b.png"],
        timestamp=NOON,
        created_at=NOON,
        raw={},
    )
    first, second = incoming.message.media
    failed = {"status": MediaStatus.FAILED, "reason": "attachment_http_404"}
    stored = {"status": MediaStatus.STORED, "digest": "0" * 64, "size": 1, "content_type": "image/png"}
    changes = ((first, failed), (first, stored), (second, failed))
    reports = [media.model_copy(update=change) for media, change in changes]
    return [
        events.message_received(incoming),
        *(
            events.media_reported(
                MediaReport(message_id=incoming.message.id, channel=Channel.SMS, media=media), time=NOON
            )
            for media in reports
        ),
    ]


def _provider_message_id(message_id: MessageId) -> str:
    return f"out-{message_id}"
