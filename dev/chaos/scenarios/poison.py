"""Messages that cannot be read or stored, published to every stream and to every bucket."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

from nats.js import JetStreamContext

from dev.chaos import faults
from dev.chaos.account import Findings, id_of_unreadable
from dev.chaos.errors import ChaosError
from dev.chaos.scene import Scenario, Scene
from shared.addresses import Address
from shared.bus.topology import (
    DELIVERIES_BUCKET,
    IDEMPOTENCY_BUCKET,
    LIMITS_BUCKET,
    WEBHOOK_ENDPOINTS_BUCKET,
    WEBHOOK_POSITIONS_BUCKET,
    inbound_message_subject,
    suppression_subject,
)
from shared.channels import Channel, MessageType
from shared.events import message_received
from shared.ids import conversation_key, request_id, suppression_key
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
    "WEBHOOK_ATTEMPTS": ("webhook.attempt.poison",),
}
_SKIPPED = (
    "notification.message.received",
    "webhook.due.poison.0.poison",
    f"$KV.{WEBHOOK_ENDPOINTS_BUCKET}.poison",
    f"$KV.{WEBHOOK_POSITIONS_BUCKET}.poison",
)
"""Subjects whose unreadable messages the notifier logs and skips."""

_NO_ADVISORY = "invalid_event"
"""The reason of every message among the advisories."""
_TRIES = 40
"""Requests, half a second apart, before a 503 counts as a failure."""


def _poisons() -> Iterator[tuple[bytes, str]]:
    """Yield payloads, and the reason of the dead letter that each must become."""
    yield b"\xff\xfe\x00{garbage", "not_json"
    yield b'{"truncated": ', "not_json"
    yield b"[1, 2, 3]", "invalid_event"
    yield b'{"id": 1, "data": null}', "invalid_event"
    yield _event("messaging.message.accepted.v1", {"message": "none"}), "invalid_event"
    yield _event("messaging.message.accepted.v99", {}), "unknown_type"


async def _play(scene: Scene) -> None:
    """Publish every payload to every stream, and wherever the services read a value back, under load."""
    async with faults.connected(scene.stack) as client:
        jetstream = client.jetstream()
        await poison_streams(scene, jetstream)
        for payload, reason in _poisons():
            await _poison_state(scene, jetstream, payload, reason)
    await asyncio.sleep(2)  # the load continues after the poison


async def poison_streams(scene: Scene, jetstream: JetStreamContext) -> None:
    """Publish every payload to every stream."""
    for stream, subjects in _SUBJECTS.items():
        for subject in subjects:
            for payload, reason in _poisons():
                number = len(scene.dead_letters)
                await _publish(scene, jetstream, stream, subject.format(number=number), payload, reason)
    for subject in _SKIPPED:
        for payload, _ in _poisons():
            await jetstream.publish(subject, payload)
    subject = "inbound.message.sms.7.poison"
    await _publish(scene, jetstream, "INBOUND", subject, _not_storable(), "not_storable")


async def _poison_state(scene: Scene, jetstream: JetStreamContext, payload: bytes, reason: str) -> None:
    """Make each value that a request depends on unreadable, and make that request."""
    number = scene.random.randrange(10**6)
    mail = {"from": "us@example.com", "to": f"poison-{number}@example.com", "body": "poison"}
    conversation = conversation_key(Channel.EMAIL, (mail["from"], mail["to"]))
    newest = inbound_message_subject(Channel.EMAIL, conversation)
    await _publish(scene, jetstream, "INBOUND", newest, payload, reason)
    await _expect(scene, 202, "email", mail)

    sms = {"from": "+12016661234", "to": f"+1804{number:07}", "type": "sms", "body": "poison"}
    key = f"poison-{number}"
    await jetstream.publish(f"$KV.{IDEMPOTENCY_BUCKET}.{request_id('anonymous', key)}", payload)
    await _expect(scene, 409, "sms", sms, {"Idempotency-Key": key})

    later = datetime.now(UTC) + timedelta(seconds=3)
    scheduled = await _expect(scene, 202, "sms", {**sms, "send_at": later.isoformat()})
    await jetstream.publish(f"$KV.{LIMITS_BUCKET}.limit.poison", payload)
    await jetstream.publish(f"$KV.{LIMITS_BUCKET}.pause.generic_sms", payload)
    await asyncio.sleep(1)  # the sender has recorded that the message is deferred
    await jetstream.publish(f"$KV.{DELIVERIES_BUCKET}.{scheduled['id']}", payload)
    scene.unreadable.append(scheduled["id"])

    pair = suppression_key(Channel.SMS, sms["from"], sms["to"])
    subject = suppression_subject(Channel.SMS, pair)
    await _publish(scene, jetstream, "SUPPRESSIONS", subject, payload, reason)
    await _expect(scene, 409, "sms", sms)


async def _expect(
    scene: Scene,
    status: int,
    channel: str,
    payload: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401 - JSON
    """Make a request, repeat it while the response is a 503, and return the body of the response.

    Raises:
        ChaosError: the response has another status.
    """
    url = f"{scene.stack.gateway_url}/api/messages/{channel}"
    for _ in range(_TRIES):
        response = await scene.stack.http.post(url, json=payload, headers=headers)
        if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(0.5)
    if response.status_code != status:
        raise ChaosError(f"{response.status_code} instead of {status}: {response.text}")
    return response.json()


def check(scene: Scene, findings: Findings) -> None:
    """Expect the dead letters of all poison, for the expected reasons."""
    for id_, expected in scene.dead_letters.items():
        found = findings.dead_letters.get(id_)
        scene.expect(found == expected, f"dead letter {id_} has the reason {found}, not {expected}")
    for id_ in scene.unreadable:
        found = findings.failures.get(id_)
        scene.expect(found == "unreadable_state", f"message {id_} was dead-lettered as {found}")
    found_reasons = sorted(
        {findings.dead_letters[id_] for id_ in scene.dead_letters if id_ in findings.dead_letters}
    )
    scene.notes.append(f"{len(scene.unreadable)} unreadable ledger entries")
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
    about="every stream and bucket gets garbage, invalid events and events of an unknown version",
    play=_play,
    check=check,
    may_repeat=False,
)
