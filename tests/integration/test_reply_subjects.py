"""The subjects to which services may let NATS answer.

The server checks to which subjects a user may publish, but not to which subjects it lets others answer. The
answer to an allowed request must therefore not reach any stream or API that the user may not use itself.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial

import nats
import pytest
from nats.aio.msg import Msg

from shared.bus.topology import CONSUMERS, PIN_GROUP, Stream
from tests.rights import (
    ADMIN,
    ADMINISTRATION,
    BUCKETS,
    CONFIGURATION,
    READ_BY,
    SERVICES,
    SUBJECTS,
    ConfiguredNats,
    fill,
    probing,
    provisioned_server,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration

_VERBS = ("INFO", "MSG.NEXT", "UNPIN")
_EXAMPLES = (
    *(subject for subjects in SUBJECTS.values() for subject in subjects),
    *(f"$KV.{name}.key" for name in BUCKETS),
    *(f"$JS.API.CONSUMER.{verb}.{c.stream}.{c.name}" for verb in _VERBS for c in CONSUMERS[::-1]),
    *(f"$JS.ACK.{c.stream}.{c.name}.1.1.1.1700000000000000000.0" for c in CONSUMERS[::-1]),
)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConfiguredNats]:
    async with provisioned_server(tmp_path_factory.mktemp("nats")) as server:
        await fill(server)
        yield server


def rights() -> Iterator[tuple[str, str]]:
    """Yield each service with the subjects that its account imports, with examples for wildcards."""
    configuration = CONFIGURATION.read_text()
    for service in SERVICES:
        account = configuration.partition(f"\n  {service.upper()} {{\n")[2].partition("\n  }\n")[0]
        for pattern in re.findall(r'subject: "([^"]+)" } }', account):
            yield service, _example_of(pattern)


def _example_of(pattern: str) -> str:
    expression = re.compile(re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+"))
    return next((subject for subject in _EXAMPLES if expression.fullmatch(subject)), pattern)


def request_to(subject: str) -> bytes:
    """Return a request that the server answers."""
    if ".DIRECT.GET." in subject:
        return b'{"last_by_subj": ">"}'
    if ".MSG.NEXT." in subject:
        group = {"group": PIN_GROUP} if ".sender-" in subject and "delayed" not in subject else {}
        return json.dumps({"batch": 1, "no_wait": True, **group}).encode()
    if ".UNPIN." in subject:
        return json.dumps({"group": PIN_GROUP}).encode()
    return b"{}"


def of_others(service: str) -> set[str]:
    """Return subjects of the API, of streams and of consumers that a service may not publish to."""
    streams = {
        subject for subjects in SUBJECTS.values() for subject, by in subjects.items() if service not in by
    }
    buckets = {f"$KV.{name}.key" for name, by in BUCKETS.items() if service not in by}
    consumers = {
        f"$JS.API.CONSUMER.{verb}.{consumer.stream}.{consumer.name}"
        for consumer in CONSUMERS
        if consumer not in READ_BY.get(service, ())
        for verb in ("MSG.NEXT", "UNPIN")
    }
    return {*ADMINISTRATION, *streams, *buckets, *consumers}


async def state(server: ConfiguredNats, service: str) -> dict[str, object]:
    """Return everything on the server that a service must not be able to change."""
    own = {consumer.name for consumer in READ_BY.get(service, ())}
    found: dict[str, object] = {}
    client = await nats.connect(server.url_for(ADMIN))
    jetstream = client.jetstream()
    forbidden = of_others(service)
    for name in (*Stream, *(f"KV_{bucket}" for bucket in BUCKETS)):
        stream = await jetstream.stream_info(name, subjects_filter=">")
        stored = {
            subject: count for subject, count in (stream.state.subjects or {}).items() if subject in forbidden
        }
        found[name] = (stream.config, stored)
        for consumer in await jetstream.consumers_info(name):
            assert consumer.delivered is not None
            read = None if consumer.name in own else consumer.delivered.consumer_seq
            found[consumer.name] = (consumer.config, consumer.created, read)
    await client.close()
    return found


async def count(server: ConfiguredNats) -> dict[str, int]:
    """Return the number of messages in each stream."""
    client = await nats.connect(server.url_for(ADMIN))
    found = await client.jetstream().streams_info()
    await client.close()
    return {str(stream.config.name): stream.state.messages for stream in found}


@pytest.mark.parametrize(("service", "right"), [*rights()])
async def test_an_answer_stays_in_the_account_of_the_service(
    server: ConfiguredNats, service: str, right: str
) -> None:
    before, messages = await state(server, service), await count(server)
    client = await nats.connect(server.url_for(service))
    unanswered = of_others(service)

    async def receive(target: str, _: Msg) -> None:
        unanswered.discard(target)

    for target in unanswered:
        await client.subscribe(target, cb=partial(receive, target))
    for target in [*unanswered]:
        await client.publish(right, request_to(right), reply=target)

    async def all_are_answered() -> bool:
        return not unanswered

    try:
        await eventually(all_are_answered)
    finally:
        await client.close()
        assert await state(server, service) == before
        assert all(left >= messages[name] for name, left in (await count(server)).items())


@pytest.mark.parametrize("service", SERVICES)
async def test_a_request_cannot_be_answered_with_an_acknowledgement(
    server: ConfiguredNats, service: str
) -> None:
    """The server does not rewrite these reply subjects, because messages of consumers have them."""
    async with probing(server, service) as probe:
        for consumer in CONSUMERS:
            subject = f"$JS.ACK.{consumer.stream}.{consumer.name}.1.1.1.1700000000000000000.0"
            assert not await probe.may_reply_to(subject)
