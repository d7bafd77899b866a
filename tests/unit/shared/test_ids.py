from collections.abc import Callable
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import (
    PARTITIONS,
    ConversationKey,
    conversation_key,
    inbound_message_id,
    new_message_id,
    partition_of,
    request_id,
    suppression_key,
)

ADDRESSES = st.text(alphabet=st.characters(exclude_characters="\n", codec="utf-8"), min_size=1, max_size=20)


@given(st.lists(ADDRESSES, min_size=1, max_size=5), st.randoms())
def test_a_conversation_is_the_same_from_every_side(addresses: list[str], random: Random) -> None:
    shuffled = [*addresses, addresses[0]]
    random.shuffle(shuffled)
    assert conversation_key("sms", shuffled) == conversation_key("sms", addresses)


@given(st.sets(ADDRESSES, min_size=1, max_size=4), st.sets(ADDRESSES, min_size=1, max_size=4))
def test_other_participants_have_another_conversation(some: set[str], others: set[str]) -> None:
    assert (conversation_key("sms", some) == conversation_key("sms", others)) == (some == others)


@given(st.sets(ADDRESSES, min_size=1, max_size=4))
def test_the_same_participants_have_another_conversation_in_another_channel(addresses: set[str]) -> None:
    assert conversation_key("sms", addresses) != conversation_key("email", addresses)


def test_the_opt_outs_of_a_pair_depend_on_the_channel_and_on_each_address() -> None:
    pairs = [("a", "b"), ("b", "a"), (None, "b"), (None, "a")]
    keys = {suppression_key(channel, *pair) for channel in ("sms", "email") for pair in pairs}
    assert len(keys) == 2 * len(pairs)


@given(st.uuids())
def test_partitions_are_in_range(key: UUID) -> None:
    assert 0 <= partition_of(ConversationKey(key)) < PARTITIONS


def test_new_message_ids_sort_by_time() -> None:
    ids = [new_message_id() for _ in range(100)]
    assert ids == sorted(ids)
    assert {id_.version for id_ in ids} == {7}


@pytest.mark.parametrize("identify", [request_id, inbound_message_id])
def test_computed_ids_depend_on_both_parts(identify: Callable[[str, str], UUID]) -> None:
    ids = {identify(*parts) for parts in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"))}
    assert len(ids) == 3
    assert {id_.version for id_ in ids} == {5}
