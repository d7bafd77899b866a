"""The requests to the gateway when it is overloaded."""

import asyncio

from mock_providers.webhooks import MAX_CONCURRENT, Gateway, GatewayUnreachableError, make_client
from tests.stand_in import Answer, standing_in
from tests.waiting import eventually

WEBHOOKS = 3 * MAX_CONCURRENT


async def test_webhooks_that_wait_for_their_turn_survive_an_overload() -> None:
    async with standing_in() as server, make_client(timeout=2) as client:
        server.answer = lambda _: Answer(ending="hang")
        gateway = Gateway(client, server.url)
        posts = [asyncio.create_task(gateway.post(f"{server.url}/", b"{}", {})) for _ in range(WEBHOOKS)]

        async def all_places_are_taken() -> bool:
            return len(server.requests) == MAX_CONCURRENT

        await eventually(all_places_are_taken)
        server.answer = lambda _: Answer()
        results = await asyncio.gather(*posts, return_exceptions=True)

    lost = [each for each in results if isinstance(each, GatewayUnreachableError)]
    assert len(lost) == MAX_CONCURRENT
    assert len(results) - len(lost) == WEBHOOKS - MAX_CONCURRENT
    assert not [each for each in results if isinstance(each, BaseException) and each not in lost]
