import re

import pytest

from shared.bus.topology import (
    CONSUMERS,
    Stream,
    dead_letter_resolved_subject,
    dead_letter_subject,
    delayed_due_subject,
    delayed_wait_subject,
    event_subject,
    inbound_message_subject,
    inbound_receipt_subject,
    notification_subject,
    outbound_subject,
    sender_shards,
    shard_named,
    streams,
    suppression_subject,
)
from shared.channels import Channel
from shared.ids import PARTITIONS, partition_of, suppression_key
from shared.message import Priority
from shared.notifications import NotificationType
from shared.status import Status
from tests import messages
from tests.jetstream import subject_matches

MESSAGE = messages.message()
SUBJECTS = {
    inbound_message_subject(Channel.SMS, MESSAGE.conversation_key): Stream.INBOUND,
    inbound_receipt_subject(Channel.EMAIL, "generic_email"): Stream.INBOUND,
    outbound_subject(Channel.SMS, MESSAGE.conversation_key): Stream.OUTBOUND,
    outbound_subject(Channel.EMAIL, MESSAGE.conversation_key, Priority.BULK): Stream.OUTBOUND,
    delayed_wait_subject(MESSAGE.id): Stream.DELAYED,
    delayed_due_subject(Channel.SMS, MESSAGE.conversation_key, MESSAGE.id): Stream.DELAYED,
    event_subject(Channel.SMS, Status.SENT): Stream.EVENTS,
    dead_letter_subject("inbound", None): Stream.DEADLETTER,
    dead_letter_resolved_subject(Channel.EMAIL): Stream.DEADLETTER,
    suppression_subject(Channel.SMS, suppression_key(Channel.SMS, None, messages.BOB)): Stream.SUPPRESSIONS,
    **{notification_subject(each): Stream.NOTIFICATIONS for each in NotificationType},
}


def test_every_subject_belongs_to_its_stream_and_to_no_other() -> None:
    by_name = {config.name: config.subjects or [] for config in streams(replicas=1, max_bytes=-1)}
    for subject, stream in SUBJECTS.items():
        found = [
            name
            for name, patterns in by_name.items()
            if any(subject_matches(each, subject) for each in patterns)
        ]
        assert found == [stream]


@pytest.mark.parametrize("count", [1, 5, 8, PARTITIONS])
def test_every_subject_to_be_sent_belongs_to_one_shard(count: int) -> None:
    for channel in Channel:
        filters = [subject for shard in sender_shards(channel, count) for subject in shard.filter_subjects]
        assert sorted(filters) == sorted(
            f"outbound.{channel}.{prefix}{number}.*"
            for prefix in ("transactional.", "bulk.", "")  # version 0.1 had no priorities
            for number in range(PARTITIONS)
        )


def test_the_subject_of_a_message_shows_its_priority_and_the_beginning_of_its_conversation() -> None:
    key = MESSAGE.conversation_key
    partition, bucket = partition_of(key), str(key)[:2]
    assert outbound_subject(Channel.SMS, key, Priority.BULK) == f"outbound.sms.bulk.{partition}.{bucket}"
    assert outbound_subject(Channel.SMS, key) == f"outbound.sms.transactional.{partition}.{bucket}"


def test_shards_are_recognised_by_their_names() -> None:
    for channel, other in (Channel, reversed(Channel)):
        for shard in sender_shards(channel, 12):
            found = shard_named(shard.name, channel)
            assert found is not None
            assert (found.name, found.stream, found.is_pinned) == (shard.name, shard.stream, True)
            assert shard_named(shard.name, other) is None
    names = {consumer.name for consumer in CONSUMERS if not consumer.is_pinned} | {"sender-sms-03"}
    assert [name for name in names if shard_named(name, Channel.SMS)] == []


def test_the_names_of_consumers_are_unique() -> None:
    names = [(consumer.stream, consumer.name) for consumer in CONSUMERS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for _, name in names)


def test_positions_of_webhook_endpoints_expire_after_the_events_that_precede_them() -> None:
    ages = {config.name: config.max_age or 0 for config in streams(replicas=1, max_bytes=-1)}

    assert ages["KV_WEBHOOK_POSITIONS"] >= max(ages[Stream.NOTIFICATIONS], ages[Stream.WEBHOOK_RETRIES]) > 0
