import pytest

from dev.chaos.account import Findings, Line
from dev.chaos.load import Item, Record
from dev.chaos.runner import _violations


def line(*missing: str) -> Line:
    return Line(
        name="sms out",
        requested=3,
        accepted=3,
        stored=3 - len(missing),
        sent_once=3,
        dead_lettered=0,
        expired=0,
        missing=[Item(name, "sms", ("sms-1", 1), id=f"id-{name}") for name in missing],
        duplicates=[],
    )


@pytest.mark.parametrize(
    ("missing", "lost", "violations"),
    [
        ([], 0, []),
        (["a"], 0, ["1 messages are missing: a (id-a)"]),
        (["a", "b"], 2, []),
        (["a", "b"], 1, ["2 messages are missing instead of 1: a (id-a), b (id-b)"]),
    ],
)
def test_no_more_messages_may_be_missing_than_were_counted(
    missing: list[str], lost: int, violations: list[str]
) -> None:
    assert _violations(Record(), Findings(), [line(*missing)], lost) == violations
