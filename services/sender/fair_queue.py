"""A queue that serves its callers in turn, and the sending addresses of each caller in turn."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.message import DeliveryRequest, Priority

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an item in the order of service.

    Attributes:
        priority: bulk items are served only when no transactional item is ready.
        caller: the name of the API key; callers are served in turn.
        sender: the sending address; the addresses of a caller are served in turn.
    """

    priority: Priority
    caller: str | None
    sender: str

    @classmethod
    def of(cls, request: DeliveryRequest) -> "Place":
        return cls(request.message.priority, request.caller, request.message.from_key.casefold())


class FairQueue(Generic[Item]):
    """Waiting items. Those with the same place are served in the order of their arrival."""

    def __init__(self) -> None:
        # Each dict begins with the caller, or the address of a caller, that was served least recently.
        self._callers: dict[Priority, dict[str | None, dict[str, deque[Item]]]] = {
            priority: {} for priority in Priority
        }

    def push(self, place: Place, item: Item) -> None:
        senders = self._callers[place.priority].setdefault(place.caller, {})
        senders.setdefault(place.sender, deque()).append(item)

    def pop(self, is_ready: Callable[[Item], bool]) -> Item | None:
        """Remove and return the next item that is ready, or None.

        An item that is not ready holds up the items with the same place behind it, but no others.
        """
        for callers in self._callers.values():
            for caller, senders in callers.items():
                for sender, items in senders.items():
                    if is_ready(items[0]):
                        senders[sender] = senders.pop(sender)
                        callers[caller] = callers.pop(caller)
                        item = items.popleft()
                        if not items:
                            del senders[sender]
                        if not senders:
                            del callers[caller]
                        return item
        return None
