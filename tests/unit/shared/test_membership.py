from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.membership import divide

SHARDS = [f"shard-{number}" for number in range(8)]
HELD = st.dictionaries(st.sampled_from("abcdefghijkl"), st.frozensets(st.sampled_from(SHARDS)), min_size=1)


@given(HELD)
def test_each_shard_belongs_to_one_member_and_all_have_equally_many(
    held: Mapping[str, frozenset[str]],
) -> None:
    shares = divide(SHARDS, held)
    assert shares.keys() == held.keys()
    assert sorted(shard for share in shares.values() for shard in share) == SHARDS
    sizes = {len(share) for share in shares.values()}
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 8))
def test_members_that_agree_keep_what_they_have(count: int) -> None:
    shares = divide(SHARDS, {str(number): () for number in range(count)})
    assert divide(SHARDS, shares) == shares


@given(st.integers(1, 7))
def test_a_member_that_joins_gets_its_share_and_nothing_else_moves(count: int) -> None:
    before = divide(SHARDS, {str(number): () for number in range(count)})
    after = divide(SHARDS, {**before, "new": ()})
    moved = [shard for member in before for shard in before[member] if shard not in after[member]]
    assert sorted(moved) == sorted(after["new"])


@given(st.integers(2, 8))
def test_a_member_that_leaves_has_its_shards_divided_and_nothing_else_moves(count: int) -> None:
    before = divide(SHARDS, {str(number): () for number in range(count)})
    del before["0"]
    after = divide(SHARDS, before)
    assert all(set(before[member]) <= set(after[member]) for member in before)
