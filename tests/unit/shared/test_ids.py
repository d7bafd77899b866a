from collections.abc import Callable
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import (
    PARTITIONS,
    ConversationKey,
    MessageId,
    conversation_key,
    idempotent_message_id,
    inbound_message_id,
    new_message_id,
    partition_of,
)

ADDRESSES = st.text(alphabet=st.characters(exclude_characters="\n", codec="utf-8"), min_size=1, max_size=20)


@given(st.lists(ADDRESSES, min_size=1, max_size=5), st.randoms())
def test_a_conversation_is_the_same_from_every_side(addresses: list[str], random: Random) -> None:
    shuffled = [*addresses, addresses[0]]
    random.shuffle(shuffled)
    assert conversation_key(shuffled) == conversation_key(addresses)


@given(st.sets(ADDRESSES, min_size=1, max_size=4), st.sets(ADDRESSES, min_size=1, max_size=4))
def test_other_participants_are_another_conversation(some: set[str], others: set[str]) -> None:
    assert (conversation_key(some) == conversation_key(others)) == (some == others)


@given(st.uuids())
def test_partitions_are_in_range(key: UUID) -> None:
    assert 0 <= partition_of(ConversationKey(key)) < PARTITIONS


def test_new_message_ids_sort_by_time() -> None:
    ids = [new_message_id() for _ in range(100)]
    assert ids == sorted(ids)
    assert {id_.version for id_ in ids} == {7}


@pytest.mark.parametrize("make", [idempotent_message_id, inbound_message_id])
def test_repeatable_ids_depend_on_both_parts(make: Callable[[str, str], MessageId]) -> None:
    ids = {make(*parts) for parts in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"))}
    assert len(ids) == 3
    assert {id_.version for id_ in ids} == {5}
