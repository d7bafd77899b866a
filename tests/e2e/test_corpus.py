"""No message of a corpus is lost between the webhooks and the database."""

import asyncio
from collections import Counter
from pathlib import Path

import asyncpg

from tests.corpus import Post, corpus
from tests.e2e.stack import Stack, running_stack
from tests.waiting import eventually


async def test_each_webhook_is_in_the_database_once(tmp_path: Path, database_url: str, nats_url: str) -> None:
    posts = [*corpus()]
    posts = [post for number, post in enumerate(posts) if number % 7 == 0 or post.body is None]
    readable = Counter((post.sender, post.body) for post in posts if post.body is not None)
    unreadable = len(posts) - readable.total()
    running = running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, services=("gateway", "ingest")
    )
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with running as stack:
        await _post(stack, [*posts, *posts[::10]])

        async def stored() -> bool:
            messages = await connection.fetchval("SELECT count(*) FROM messages")
            kept = await connection.fetchval("SELECT count(*) FROM dead_letters")
            return bool((messages, kept) == (readable.total(), unreadable))

        await eventually(stored)
        messages = await connection.fetch("SELECT from_address, body FROM messages")
        channels = await connection.fetch("SELECT channel FROM dead_letters")
    await connection.close()
    assert Counter((row["from_address"], row["body"].strip()) for row in messages) == readable
    assert Counter(row["channel"] for row in channels) == {"sms": 4, "email": 2}


async def _post(stack: Stack, posts: list[Post]) -> None:
    """Post several webhooks at a time, each of which must be accepted."""
    remaining = iter(posts)

    async def work() -> None:
        for post in remaining:
            url = f"{stack.gateway_url}{post.path}"
            response = await stack.client.post(url, content=post.content, headers=dict(post.headers))
            assert response.is_success, response.text

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(work())
