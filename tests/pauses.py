"""Pauses of a single process, for tests without NATS."""

from services.sender.pauses import Listener, Pauses


class LocalPauses(Pauses):
    """Applies the pauses that it records, and no others."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    async def until_known(self) -> None:
        pass

    def record(self, provider: str, sender: str | None, seconds: float) -> None:
        self._listeners[provider](sender, seconds)
