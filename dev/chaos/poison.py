"""What nobody can read or apply, put into every stream."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from nats.js import JetStreamContext

from dev.chaos import faults
from dev.chaos.account import Findings, letter_of
from dev.chaos.scene import Scene
from shared.channels import Direction, MessageType
from shared.events import InboundMessage, Message, MessageReceived
from shared.ids import conversation_key, new_message_id

# In DELAYED a message replaces the one before it on its subject.
_SUBJECTS = {
    "INBOUND": ("inbound.message.sms.7.poison", "inbound.receipt.email.poison"),
    "OUTBOUND": ("outbound.sms.7.poison", "outbound.email.8.poison"),
    "DELAYED": ("delayed.due.sms.7.poison.{number}",),
    "EVENTS": ("events.sms.sent",),
    "DEADLETTER": ("deadletter.outbound.sms",),
    "ADVISORIES": ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.poison.poison",),
}
_NO_ADVISORY = "invalid_event"
"""The one reason that there is for what lies among the advisories."""


def _poisons() -> Iterator[tuple[bytes, str]]:
    """What to publish, and the reason with which it has to be given up."""
    yield b"\xff\xfe\x00{garbage", "not_json"
    yield b'{"truncated": ', "not_json"
    yield b"[1, 2, 3]", "invalid_event"
    yield b'{"id": 1, "data": null}', "invalid_event"
    yield _event("messaging.message.accepted.v1", {"message": "none"}), "invalid_event"
    yield _event("messaging.message.accepted.v99", {}), "unknown_type"


async def play(scene: Scene) -> None:
    """Put all poisons into all streams, amid the load."""
    async with faults.connected(scene.stack) as client:
        jetstream = client.jetstream()
        for stream, subjects in _SUBJECTS.items():
            for subject in subjects:
                for number, (payload, reason) in enumerate(_poisons()):
                    await _put(scene, jetstream, stream, subject.format(number=number), payload, reason)
        await _put(scene, jetstream, "INBOUND", "inbound.message.sms.7.poison", _unstorable(), "not_storable")
    await asyncio.sleep(2)  # the load goes on behind what was put in


def check(scene: Scene, findings: Findings) -> None:
    for letter, expected in scene.letters.items():
        found = findings.letters.get(letter)
        scene.demand(found == expected, f"dead letter {letter} has the reason {found}, not {expected}")
    reasons = sorted({findings.letters[letter] for letter in scene.letters if letter in findings.letters})
    scene.notes.append(f"{len(scene.letters)} poisons, dead letters with the reasons {', '.join(reasons)}")


async def _put(
    scene: Scene, jetstream: JetStreamContext, stream: str, subject: str, payload: bytes, reason: str
) -> None:
    stored = await jetstream.publish(subject, payload, stream=stream)
    scene.letters[letter_of(stream, stored.seq)] = _NO_ADVISORY if stream == "ADVISORIES" else reason


def _event(type_: str, data: object) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(UUID(int=1)),
        "source": "/chaos",
        "subject": "poison",
        "time": datetime.now(UTC).isoformat(),
        "type": type_,
        "data": data,
    }
    return json.dumps(event).encode()


def _unstorable() -> bytes:
    """A message in order, but for a character that PostgreSQL does not take: its handler raises."""
    participants = ["+12016661234", "+18045550000"]
    now = datetime.now(UTC)
    message = Message(
        id=new_message_id(),
        conversation_key=conversation_key(participants),
        direction=Direction.INBOUND,
        type=MessageType.SMS,
        from_=participants[1],
        to=participants[0],
        participants=participants,
        body="poison \0",
        attachments=[],
        timestamp=now,
        created_at=now,
        provider="poison",
        provider_message_id="poison",
    )
    return MessageReceived.of(InboundMessage(message=message, raw=None)).encode()
