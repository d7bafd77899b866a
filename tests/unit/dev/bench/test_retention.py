from uuid import uuid4

from dev.bench.retention import Entry, Share


def test_each_copy_of_an_entry_has_its_own_message_and_conversation() -> None:
    message_id, conversation = str(uuid4()), str(uuid4())
    entry = Entry(f"outbound.{conversation}.{message_id}", f'{{"id": "{message_id}"}}'.encode(), message_id)
    first, second = entry.copy(), entry.copy()
    for copy in (first, second):
        _, of_conversation, of_message = copy.subject.split(".")
        assert of_conversation not in (conversation, message_id, of_message)
        assert copy.payload == f'{{"id": "{of_message}"}}'.encode()
        assert of_message != message_id
    assert first.subject != second.subject
    assert (first.id, first.headers) == (None, {})


def test_a_million_messages_a_day_take_megabytes_of_memory_and_gigabytes_of_disk() -> None:
    share = Share("EVENTS", entries=2, memory=100, disk=500, memory_retained=1_500, disk_retained=7_500)
    assert share.cells == ["EVENTS", 2, 100, 500, 1_500, 7.5]
