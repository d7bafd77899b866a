"""The services as processes, between real servers and the mock providers over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.processes import Process
from tests.providers import MockProvider
from tests.waiting import eventually

JSON = dict[str, Any]


class Stack:
    """The running services.

    Attributes:
        sms, email: the mock providers.
    """

    def __init__(
        self, processes: Mapping[str, Process], client: httpx.AsyncClient, sms: str, email: str
    ) -> None:
        self.processes = processes
        self.client = client
        self.gateway_url = processes["gateway"].url
        self.sms = MockProvider(client, sms)
        self.email = MockProvider(client, email)

    async def start(self, name: str) -> None:
        process = self.processes[name]
        process.start()
        await process.until_ready(self.client, "/healthz" if name == "mocks" else "/readyz")

    async def post(self, path: str, payload: Any, **headers: str) -> httpx.Response:  # noqa: ANN401
        return await self.client.post(f"{self.gateway_url}{path}", json=payload, headers=headers)

    async def get(self, path: str, **parameters: Any) -> httpx.Response:  # noqa: ANN401
        return await self.client.get(f"{self.gateway_url}{path}", params=parameters)

    async def send(self, **fields: Any) -> JSON:  # noqa: ANN401
        """Send an SMS and return the message in the response."""
        payload = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello", **fields}
        response = await self.post("/api/messages/sms", payload)
        assert response.status_code == 202, response.text
        message: JSON = response.json()
        return message

    async def pages(self, path: str, **parameters: Any) -> AsyncIterator[list[JSON]]:  # noqa: ANN401
        """Yield the pages of a list."""
        cursor: dict[str, str] = {}
        while True:
            response = await self.get(path, **parameters, **cursor)
            assert response.status_code == 200, response.text
            page = response.json()
            yield page["items"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def items(self, path: str, **parameters: Any) -> list[JSON]:  # noqa: ANN401
        return [item async for page in self.pages(path, **{"limit": 100, **parameters}) for item in page]

    async def messages_of(self, key: str, count: int) -> list[JSON]:
        """Wait until the conversation has `count` messages, and return them."""

        async def look() -> list[JSON] | None:
            response = await self.get(f"/api/conversations/{key}")
            if response.status_code == 404 or response.json()["message_count"] < count:
                return None
            return await self.items(f"/api/conversations/{key}/messages")

        found = await eventually(look)
        assert found is not None
        return found

    async def message_becomes(self, message_id: str, *statuses: str) -> JSON:
        async def look() -> JSON | None:
            response = await self.get(f"/api/messages/{message_id}")
            found: JSON = response.json()
            return found if response.is_success and found["status"] in statuses else None

        found = await eventually(look)
        assert found is not None
        return found


@asynccontextmanager
async def running_stack(
    folder: Path,
    *,
    database_url: str,
    nats_url: str | Callable[[str], str],
    settings: Mapping[str, str] | None = None,
    services: Sequence[str] = ("mocks", "gateway", "ingest", "sender"),
    saboteurs: Mapping[str, int] | None = None,
) -> AsyncIterator[Stack]:
    """Run the services with these servers for the block.

    Args:
        folder: the folder for the logs of the services.
        database_url: the URL of the database.
        nats_url: the URL of NATS, or a function that returns the URL of each service.
        settings: further settings. A value such as `$GATEWAY_URL` stands for the value of that setting.
        services: the services to run.
        saboteurs: the ports of `dev.chaos.sabotage`, by the services that it runs.
    """
    ports = {
        name: free_port()
        for name in ("gateway", "gateway-health", "ingest", "sender", "notifier", "mocks", "email")
    }
    environment = {
        "DATABASE_URL": database_url,
        "GATEWAY_PORT": str(ports["gateway"]),
        "GATEWAY_HEALTH_PORT": str(ports["gateway-health"]),
        "GATEWAY_URL": f"http://127.0.0.1:{ports['gateway']}",
        "SMS_PROVIDER_PORT": str(ports["mocks"]),
        "EMAIL_PROVIDER_PORT": str(ports["email"]),
        "SMS_PROVIDER_URL": f"http://127.0.0.1:{ports['mocks']}",
        "EMAIL_PROVIDER_URL": f"http://127.0.0.1:{ports['email']}",
        "RETRY_DELAYS": "0.2,0.2,0.2,0.2",
        "MEDIA_STORE": str(folder / "media"),
    }
    for name, value in (settings or {}).items():
        environment[name] = environment.get(value.removeprefix("$"), value)
    modules = {
        "mocks": "mock_providers",
        "gateway": "services.gateway",
        "ingest": "services.ingest",
        "sender": "services.sender",
        "notifier": "services.notifier",
    }
    for name, port in (saboteurs or {}).items():
        modules[name] = f"dev.chaos.sabotage {modules[name]} {port}"
    processes = {
        name: Process(
            modules[name],
            f"http://127.0.0.1:{ports[name]}",
            {
                **environment,
                "NATS_URL": nats_url if isinstance(nats_url, str) else nats_url(name),
                "HEALTH_PORT": str(ports[name]),
            },
            folder / f"{name}.log",
            health_url=f"http://127.0.0.1:{ports.get(f'{name}-health', ports[name])}",
        )
        for name in services
    }
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        stack = Stack(processes, client, environment["SMS_PROVIDER_URL"], environment["EMAIL_PROVIDER_URL"])
        try:
            for process in processes.values():
                process.start()
            for name, process in processes.items():
                await process.until_ready(client, "/healthz" if name == "mocks" else "/readyz")
            yield stack
        finally:
            await asyncio.gather(*(process.end() for process in processes.values()))
