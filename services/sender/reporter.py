"""Reports the states of the providers, for the gateway to show."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from shared import supervision
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import LIMITS_BUCKET, report_key
from shared.errors import BusUnavailableError
from shared.provider_states import REPORT_LIFETIME, SenderReport

_INTERVAL = 2.0
"""Seconds between reports that differ."""

_RENEW_AFTER = REPORT_LIFETIME.total_seconds() / 3
"""Seconds after which an unchanged report is stored again."""


class Reporter:
    """Keeps the report of this process up to date.

    Args:
        publisher: stores the reports.
        report: returns the current report.
    """

    def __init__(self, publisher: Publisher, report: Callable[[], SenderReport]) -> None:
        self._publisher = publisher
        self._report = report
        self._subject = f"$KV.{LIMITS_BUCKET}.{report_key(uuid4().hex)}"

    async def run(self) -> None:
        """Report until the task is cancelled."""
        stored: SenderReport | None = None
        age = 0.0
        while True:
            # A report that cannot be stored expires, and the next one follows soon.
            with suppress(BusUnavailableError):
                report = self._report()
                if report != stored or age >= _RENEW_AFTER:
                    await supervision.patiently(self._store(report))
                    stored, age = report, 0.0
            await supervision.patiently(asyncio.sleep(_INTERVAL))
            age += _INTERVAL

    async def _store(self, report: SenderReport) -> None:
        headers = {"Nats-TTL": f"{math.ceil(REPORT_LIFETIME.total_seconds())}s"}
        payload = report.model_dump_json().encode()
        await self._publisher.publish(f"KV_{LIMITS_BUCKET}", Outgoing(self._subject, None, payload, headers))
