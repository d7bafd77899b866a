"""Messages that cannot be read or stored, published to every stream."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from nats.js import JetStreamContext

from dev.chaos import faults
from dev.chaos.account import Findings, id_of_unreadable
from dev.chaos.scene import Scenario, Scene
from shared.addresses import Address
from shared.channels import MessageType
from shared.events import message_received
from shared.message import IncomingMessage

# In DELAYED a message replaces the one before it on its subject.
_SUBJECTS = {
    "INBOUND": ("inbound.message.sms.7.poison", "inbound.receipt.email.poison"),
    "OUTBOUND": ("outbound.sms.7.poison", "outbound.email.8.poison"),
    "DELAYED": ("delayed.due.sms.7.poison.{number}",),
    "EVENTS": ("events.sms.sent",),
    "DEADLETTER": ("deadletter.outbound.sms",),
    "SUPPRESSIONS": ("suppression.sms.poison",),
    "ADVISORIES": ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.poison.poison",),
}
_NO_ADVISORY = "invalid_event"
"""The reason of every message among the advisories."""


def _poisons() -> Iterator[tuple[bytes, str]]:
    """Yield payloads, and the reason of the dead letter that each must become."""
    yield b"\xff\xfe\x00{garbage", "not_json"
    yield b'{"truncated": ', "not_json"
    yield b"[1, 2, 3]", "invalid_event"
    yield b'{"id": 1, "data": null}', "invalid_event"
    yield _event("messaging.message.accepted.v1", {"message": "none"}), "invalid_event"
    yield _event("messaging.message.accepted.v99", {}), "unknown_type"


async def _play(scene: Scene) -> None:
    """Publish every payload to every stream, under load."""
    async with faults.connected(scene.stack) as client:
        jetstream = client.jetstream()
        for stream, subjects in _SUBJECTS.items():
            for subject in subjects:
                for number, (payload, reason) in enumerate(_poisons()):
                    await _publish(scene, jetstream, stream, subject.format(number=number), payload, reason)
        subject = "inbound.message.sms.7.poison"
        await _publish(scene, jetstream, "INBOUND", subject, _not_storable(), "not_storable")
    await asyncio.sleep(2)  # the load continues after the poison


def _check(scene: Scene, findings: Findings) -> None:
    for id_, expected in scene.dead_letters.items():
        found = findings.dead_letters.get(id_)
        scene.expect(found == expected, f"dead letter {id_} has the reason {found}, not {expected}")
    found_reasons = sorted(
        {findings.dead_letters[id_] for id_ in scene.dead_letters if id_ in findings.dead_letters}
    )
    scene.notes.append(f"{len(scene.dead_letters)} poison messages, reasons {', '.join(found_reasons)}")


async def _publish(
    scene: Scene, jetstream: JetStreamContext, stream: str, subject: str, payload: bytes, reason: str
) -> None:
    stored = await jetstream.publish(subject, payload, stream=stream)
    dead_letter = id_of_unreadable(stream, stored.seq)
    scene.dead_letters[dead_letter] = _NO_ADVISORY if stream == "ADVISORIES" else reason


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


def _not_storable() -> bytes:
    """Return a valid event with a character that PostgreSQL cannot store."""
    now = datetime.now(UTC)
    incoming = IncomingMessage.of(
        provider="poison",
        provider_message_id="poison",
        from_=Address("+18045550000", "+18045550000"),
        to=Address("+12016661234", "+12016661234"),
        type=MessageType.SMS,
        body="poison \0",
        attachments=[],
        timestamp=now,
        created_at=now,
        raw=None,
    )
    return message_received(incoming).encode()


SCENARIO = Scenario(
    name="poison",
    about="every stream gets garbage, invalid events and events of an unknown version",
    play=_play,
    check=_check,
    may_repeat=False,
)
