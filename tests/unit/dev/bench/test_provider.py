import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from dev.bench.provider import Provider, start


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with await start(Provider(), port=0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def test_it_accepts_and_counts_requests(url: str, client: httpx.AsyncClient) -> None:
    for key in ("one", "two"):
        answer = await client.post(f"{url}/messages", json={"a": 1}, headers={"Idempotency-Key": key})
        assert answer.json()["messaging_provider_id"]
    assert (await client.get(f"{url}/stats")).json()["accepted"] == 2
    assert (await client.get(f"{url}/arrivals")).json().keys() == {"one", "two"}


async def test_requests_wait_for_the_latency(url: str, client: httpx.AsyncClient) -> None:
    await client.put(f"{url}/latency/60000")
    request = asyncio.create_task(client.post(f"{url}/messages"))
    async with asyncio.timeout(30):
        while (await client.get(f"{url}/stats")).json()["in_progress"] == 0:
            pass
    assert not request.done()
    request.cancel()


async def test_requests_that_arrive_in_pieces_or_together_are_answered(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = b"POST /messages HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
    for piece in (request[:10], request[10:50], request[50:] + request):
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(30):
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.rpartition(b"content-length:")[2].strip())
            assert json.loads(await reader.readexactly(length))["messaging_provider_id"]
    writer.close()
