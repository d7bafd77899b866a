import pytest

from dev.chaos.account import Findings, Line
from dev.chaos.load import Answer, Item, Record
from dev.chaos.runner import _late_responses, _violations


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


@pytest.mark.parametrize(
    ("exempt", "late"),
    [
        (None, ["2 responses took longer than 5 s: {'webhook 200': 1, 'send unanswered': 1}"]),
        ("webhook", ["1 responses took longer than 5 s: {'send unanswered': 1}"]),
    ],
)
def test_responses_are_late_unless_webhooks_may_wait_in_a_mock(exempt: str | None, late: list[str]) -> None:
    record = Record()
    record.answers += [
        Answer(kind, at=0, seconds=seconds, status=status, retry_after=False)
        for kind, seconds, status in (("webhook", 5.1, 200), ("send", 5.1, None), ("send", 4.9, 202))
    ]
    assert list(_late_responses(record, exempt=exempt)) == late
