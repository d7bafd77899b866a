from services.sender.fair_queue import FairQueue, Place
from shared.message import Priority

BULK, TRANSACTIONAL = Priority.BULK, Priority.TRANSACTIONAL


def queue_of(*items: tuple[Priority, str | None, str, str]) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for priority, caller, sender, item in items:
        queue.push(Place(priority, caller, sender), item)
    return queue


def served(queue: FairQueue[str], *, except_for: str = "") -> str:
    found = []
    while item := queue.pop(lambda item: item not in except_for):
        found.append(item)
    return "".join(found)


def test_transactional_messages_precede_bulk_ones() -> None:
    queue = queue_of((BULK, "a", "1", "x"), (TRANSACTIONAL, "a", "1", "y"), (BULK, "b", "2", "z"))
    assert served(queue) == "yxz"


def test_callers_are_served_in_turn_regardless_of_their_backlogs() -> None:
    many = [(TRANSACTIONAL, "a", "1", item) for item in "uvwx"]
    queue = queue_of(*many, (TRANSACTIONAL, None, "2", "y"), (TRANSACTIONAL, "b", "3", "z"))
    assert served(queue) == "uyzvwx"


def test_a_caller_that_returns_is_served_last() -> None:
    queue = queue_of((TRANSACTIONAL, "a", "1", "x"), (TRANSACTIONAL, "b", "2", "y"))
    assert queue.pop(lambda _: True) == "x"
    queue.push(Place(TRANSACTIONAL, "a", "1"), "z")
    assert served(queue) == "yz"


def test_the_addresses_of_a_caller_are_served_in_turn() -> None:
    many = [(TRANSACTIONAL, "a", "1", item) for item in "uvw"]
    queue = queue_of(*many, (TRANSACTIONAL, "a", "2", "x"), (TRANSACTIONAL, "b", "3", "y"))
    assert served(queue) == "uyxvw"


def test_an_item_that_is_not_ready_holds_up_only_its_own_address() -> None:
    queue = queue_of(
        (TRANSACTIONAL, "a", "1", "u"),
        (TRANSACTIONAL, "a", "1", "v"),
        (TRANSACTIONAL, "a", "2", "w"),
        (BULK, "a", "1", "x"),
        (BULK, "b", "3", "y"),
    )
    assert served(queue, except_for="ux") == "wy"
    assert served(queue) == "uvx"
