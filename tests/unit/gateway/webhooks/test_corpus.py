"""No message of a corpus is lost on its way through the gateway, whether it is posted once or again."""

from collections import Counter

import httpx

from shared.bus.topology import Stream
from tests.corpus import corpus
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import events


async def test_each_webhook_is_in_the_streams_once(client: httpx.AsyncClient, server: JetStream) -> None:
    posts = [*corpus()]
    for post in (*posts, *posts[::20]):
        response = await client.post(post.path, content=post.content, headers=post.headers)
        assert response.is_success, response.text

    found = [event.data.message for event in events(server, Stream.INBOUND)]
    readable = [post for post in posts if post.body is not None]
    assert [(each.from_key, each.body.strip()) for each in found] == [
        (post.sender, post.body) for post in readable
    ]
    unreadable = Counter(post.path for post in posts if post.body is None)
    kept = Counter(event.data.webhook.path for event in events(server, Stream.DEADLETTER))
    assert kept == unreadable
    assert len(found) > 3_000
