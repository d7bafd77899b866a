from datetime import UTC, datetime, timedelta
from random import Random
from typing import cast

import pytest

from dev.chaos import order
from dev.chaos.account import Findings, SentMessage
from dev.chaos.load import Item, Load, Record
from dev.chaos.scene import Scene
from dev.chaos.stack import Stack

NOW = datetime(2024, 11, 1, 14, tzinfo=UTC)


class StandInLoad:
    def __init__(self, items: list[Item]) -> None:
        self.record = Record(sends=items)


def scene_of(*names: str) -> Scene:
    """Return a scene in which one conversation's messages were accepted in this order, one each minute."""
    items = [
        Item(name, "sms", ("sms-1", number), id=f"id-{name}", accepted_at=NOW + number * timedelta(minutes=1))
        for number, name in enumerate(names)
    ]
    return Scene(cast(Stack, None), cast(Load, StandInLoad(items)), is_short=True, random=Random(1))


def findings_of(*names: str, moved: tuple[str, ...] = ()) -> Findings:
    """Return the findings after a provider has accepted these messages in this order."""
    return Findings(
        sent={"sms": [SentMessage(name, f"id-{name}", NOW) for name in names]},
        moved=frozenset(f"id-{name}" for name in moved),
    )


def test_messages_in_the_order_of_acceptance_are_accepted() -> None:
    scene = scene_of("a", "b", "c")
    order.check_exact(scene, findings_of("a", "b", "c"))
    assert scene.violations == []


@pytest.mark.parametrize("sent", [("b", "a", "c"), ("b", "c", "a"), ("a", "c", "b")])
def test_a_message_that_overtakes_another_is_found(sent: tuple[str, ...]) -> None:
    scene = scene_of("a", "b", "c")
    order.check(scene, findings_of(*sent))
    assert scene.violations == ["1 conversations were sent out of order: sms-1"]


def test_a_message_that_was_retried_may_be_overtaken_unless_nothing_has_failed() -> None:
    scene = scene_of("a", "b", "c")
    findings = findings_of("b", "c", "a", moved=("a",))
    order.check(scene, findings)
    assert scene.violations == []
    order.check_exact(scene, findings)
    assert scene.violations == ["1 messages were retried or deferred although nothing failed"]


def test_only_messages_that_were_accepted_around_a_fault_may_be_overtaken() -> None:
    scene = scene_of("a", "b", "c")
    second = timedelta(seconds=1)
    scene.disorder.append((NOW - second, NOW + second))
    order.check(scene, findings_of("b", "c", "a"))
    assert scene.violations == []
    order.check(scene, findings_of("a", "c", "b"))
    assert scene.violations == ["1 conversations were sent out of order: sms-1"]
