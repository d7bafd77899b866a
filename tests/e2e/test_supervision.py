"""A process of which a task or the event loop is stuck or has ended is soon well again, or gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running_stack
from tests.ports import free_port
from tests.waiting import eventually

_SECONDS = 15
"""It takes ten seconds on a machine that does nothing else."""

CONVERSATIONS = 12


class Sabotaged:
    """A service whose tasks can be cancelled and blocked."""

    def __init__(self, stack: Stack, service: str, port: int) -> None:
        self._stack = stack
        self._service = service
        self._url = f"http://127.0.0.1:{port}"

    async def tasks(self) -> list[str]:
        return (await self._stack.client.get(f"{self._url}/tasks")).text.splitlines()

    async def act(self, action: str, task: str = "") -> None:
        await self._stack.client.post(f"{self._url}/{action}?{task}")

    async def is_gone(self) -> bool:
        return self._stack.processes[self._service].status is not None

    async def is_well_or_gone(self) -> str:
        """Return `gone` if the process ends soon, or else `well` if everything works."""
        try:
            await eventually(self.is_gone, within=_SECONDS)
        except AssertionError:
            process = self._stack.processes[self._service]
            await process.until_ready(self._stack.client, "/healthz")
            await process.until_ready(self._stack.client, "/readyz")
            sent = [await self._stack.send(to=f"+1804555{number:04}") for number in range(CONVERSATIONS)]
            for message in sent:
                await self._stack.message_becomes(message["id"], "sent")
            return "well"
        assert self._stack.processes[self._service].status == 1
        return "gone"

    async def restart(self) -> None:
        await self._stack.start(self._service)


@asynccontextmanager
async def sabotaged(service: str, folder: Path, database_url: str, nats_url: str) -> AsyncIterator[Sabotaged]:
    port = free_port()
    async with running_stack(
        folder,
        database_url=database_url,
        nats_url=nats_url,
        settings={"WEBHOOK_ENDPOINT_KEY": "a key for this test"},
        services=("mocks", *dict.fromkeys(("gateway", "ingest", "sender", service))),
        saboteurs={service: port},
    ) as stack:
        yield Sabotaged(stack, service, port)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("service", "faults"),
    [
        (
            "gateway",
            {
                "cancel nats": "gone",
                "block probe": "gone",
                "cancel LifespanOn.main": "gone",
                "block-loop": "gone",
            },
        ),
        (
            "ingest",
            {
                "end-log": "well",
                "cancel reader of ingest-outbound": "gone",
                "block reader of ingest-events": "gone",
                "cancel Client._read_loop": "well",
            },
        ),
        (
            "sender",
            {
                "cancel pauses": "gone",
                "block assignment of sms": "gone",
                "cancel heartbeats of sender-delayed-sms": "gone",
                "block Subscription._wait_for_msgs": "well",
            },
        ),
        (
            "notifier",
            {
                "block assignment": "gone",
                "cancel webhook endpoints": "gone",
                "block-loop": "gone",
            },
        ),
    ],
)
async def test_a_process_of_which_a_part_fails_is_well_or_gone(
    service: str, faults: dict[str, str], tmp_path: Path, database_url: str, nats_url: str
) -> None:
    async with sabotaged(service, tmp_path, database_url, nats_url) as process:
        for fault, outcome in faults.items():
            action, _, task = fault.partition(" ")
            await process.act(action, task)
            assert await process.is_well_or_gone() == outcome, fault
            if outcome == "gone":
                await process.restart()
