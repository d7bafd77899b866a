"""What the routes work with; it is made when the application starts and closed when it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from fastapi import Request

from services.gateway.archive import Archive
from services.gateway.messages.cancellation import Canceler
from services.gateway.messages.service import Intake
from services.gateway.dead_letters.service import Resolver
from shared.bus.client import Bus
from shared.suppressions import SuppressionList
from shared.errors import DatabaseUnavailableError


@dataclass(frozen=True, slots=True)
class State:
    bus: Bus
    intake: Intake
    resolver: Resolver
    archive: Archive
    canceler: Canceler
    suppressions: SuppressionList
    clock: Callable[[], datetime]
    default_region: str

    async def what_is_missing(self) -> str | None:
        """Tell why no message can be taken in. PostgreSQL is not needed for that."""
        return None if self.bus.is_connected else "NATS is not connected"

    async def notes(self) -> Mapping[str, str]:
        try:
            await self.archive.ping()
        except DatabaseUnavailableError:
            return {"postgresql": "does not answer, or is not migrated: nothing can be read"}
        return {"postgresql": "ok"}


def state_of(request: Request) -> State:
    return cast("State", request.app.state.gateway)
