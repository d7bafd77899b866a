import re

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
    outbound_subject,
    sender_shards,
    streams,
    suppression_subject,
)
from shared.channels import Channel
from shared.ids import PARTITIONS, suppression_key
from shared.status import Status
from tests import messages
from tests.jetstream import subject_matches

MESSAGE = messages.message()
SUBJECTS = {
    inbound_message_subject(Channel.SMS, MESSAGE.conversation_key): Stream.INBOUND,
    inbound_receipt_subject(Channel.EMAIL, "generic_email"): Stream.INBOUND,
    outbound_subject(Channel.SMS, MESSAGE.conversation_key): Stream.OUTBOUND,
    delayed_wait_subject(MESSAGE.id): Stream.DELAYED,
    delayed_due_subject(Channel.SMS, MESSAGE.conversation_key, MESSAGE.id): Stream.DELAYED,
    event_subject(Channel.SMS, Status.SENT): Stream.EVENTS,
    dead_letter_subject("inbound", None): Stream.DEADLETTER,
    dead_letter_resolved_subject(Channel.EMAIL): Stream.DEADLETTER,
    suppression_subject(Channel.SMS, suppression_key(Channel.SMS, None, messages.BOB)): Stream.SUPPRESSIONS,
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


def test_every_partition_of_a_channel_belongs_to_one_shard() -> None:
    for channel in Channel:
        filters = [subject for shard in sender_shards(channel) for subject in shard.filter_subjects]
        assert sorted(filters) == sorted(f"outbound.{channel}.{number}.*" for number in range(PARTITIONS))


def test_the_names_of_consumers_are_unique() -> None:
    names = [(consumer.stream, consumer.name) for consumer in CONSUMERS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for _, name in names)
