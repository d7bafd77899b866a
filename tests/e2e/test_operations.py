"""The commands of docs/operations.md, each of which is run as it is written there."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import nats as nats_client
import prometheus_client
import pytest
from nats.js import JetStreamContext

from dev.chaos.cluster import running_cluster
from shared.bus.topology import PIN_GROUP, sender_shards, streams
from shared.channels import Channel
from shared.ids import ConversationKey, partition_of
from shared.observability import metrics
from tests import documents, infrastructure
from tests.documents import ROOT, Terminal
from tests.e2e.stack import Stack, running_stack
from tests.e2e.test_replay import exchange, tables, until_idle, without_numbers
from tests.waiting import eventually

DOCUMENT = ROOT / "docs" / "operations.md"
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def _tools() -> None:
    documents.need("nats", "jq", "curl", "bash")


@pytest.fixture
async def terminal(tmp_path: Path, nats_url: str, database_url: str) -> Terminal:
    """Return an operator's terminal, connected to the test's servers."""
    return Terminal(
        DOCUMENT,
        {"NATS_URL": nats_url, "DATABASE_URL": database_url, "XDG_CONFIG_HOME": str(tmp_path / "config")},
    )


@pytest.fixture
async def other_nats(tmp_path: Path) -> AsyncIterator[infrastructure.Server]:
    """Run another, empty server."""
    async with infrastructure.nats(tmp_path / "other") as server:
        yield server


def shard_of(conversation: str) -> str:
    subject = f"outbound.sms.transactional.{partition_of(ConversationKey(UUID(conversation)))}.*"
    [shard] = [shard for shard in sender_shards(Channel.SMS) if subject in shard.filter_subjects]
    return shard.name


async def execute(database_url: str, *statements: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def as_shown(stack: Stack) -> Any:  # noqa: ANN401 - any JSON
    """Return everything that the API shows, without the numbers of conversations."""
    conversations = await stack.items("/api/conversations")
    ids = [
        message["id"]
        for conversation in conversations
        for message in await stack.items(f"/api/conversations/{conversation['key']}/messages")
    ]
    messages = [(await stack.get(f"/api/messages/{id_}")).json() for id_ in ids]
    dead_letters = await stack.items("/api/dead-letters")
    suppressions = await stack.items("/api/suppressions")
    return without_numbers([conversations, messages, dead_letters, suppressions])


async def accepted_by(stack: Stack) -> list[str]:
    """Return the ids of the messages that the provider has accepted."""
    return [sent["idempotency_key"] for sent in await stack.sms.messages()]


def test_every_command_is_tested() -> None:
    run = set(re.findall(r'\brun[(,]\s*"([\w-]+)"', Path(__file__).read_text()))
    assert run | {block for block, _, _ in REPLAYS} == set(documents.commands(DOCUMENT))


def test_the_metrics_exist() -> None:
    named = set(re.findall(r"`(messaging_[a-z_]+)", DOCUMENT.read_text()))
    known = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in prometheus_client.REGISTRY.collect()
    }
    assert metrics.CONSUMER_PENDING._name in named  # noqa: SLF001 - there is no public attribute
    assert named - known == set()


async def test_connecting_and_checking_the_health(stack: Stack, terminal: Terminal) -> None:
    listed = (await terminal.run("connect")).split()
    assert {str(stream.name) for stream in streams(replicas=1, max_bytes=-1)} <= set(listed)
    healthy = await terminal.run("healthy", GATEWAY_URL=stack.gateway_url)
    assert "OK JetStream" in healthy
    assert '{"status":"ready","postgresql":"ok"}' in healthy


async def test_the_lag_of_consumers_and_draining(stack: Stack, terminal: Terminal) -> None:
    await terminal.run("drained")
    assert await terminal.run("lag") == ""
    await stack.processes["ingest"].end()
    sent = await stack.send()
    await eventually(lambda: accepted_by(stack))
    draining = asyncio.create_task(terminal.run("drained"))

    async def lag() -> list[list[str]] | None:
        lines = [line.split() for line in (await terminal.run("lag")).splitlines()]
        return lines if {line[0] for line in lines} == {"OUTBOUND", "EVENTS"} else None

    lines = await eventually(lag)
    assert lines is not None
    assert [line[:4] for line in lines] == [
        ["OUTBOUND", "ingest-outbound", "1", "0"],
        ["EVENTS", "ingest-events", "1", "0"],
    ]
    assert not draining.done()
    await stack.start("ingest")
    await draining
    await stack.message_becomes(sent["id"], "sent")
    assert await terminal.run("lag") == ""


EVERYTHING = (
    "TRUNCATE message_events, delivery_receipts, dead_letters, dead_letter_resolutions, messages,"
    " conversation_participants, conversations, participants, suppression_changes"
)

REPLAYS = [
    ("replay-since", {}, EVERYTHING),
    (
        "replay-subject",
        {"STREAM": "OUTBOUND", "SUBJECT": "outbound.sms.>"},
        "DELETE FROM messages WHERE direction = 'outbound'",
    ),
    (
        "replay-subject",
        {"STREAM": "EVENTS", "SUBJECT": "events.*.sent"},
        "DELETE FROM message_events WHERE status = 'sent'",
    ),
    (
        "replay-subject",
        {"STREAM": "SUPPRESSIONS", "SUBJECT": "suppression.sms.*"},
        "DELETE FROM suppression_changes",
    ),
    (
        "republish",
        {
            "STREAM": "OUTBOUND",
            "SUBJECT": "outbound.*.*.*.{conversation:.2}",
            "CONVERSATION": "{conversation}",
        },
        "DELETE FROM messages WHERE direction = 'outbound'",
    ),
    (
        "republish",
        {"STREAM": "INBOUND", "SUBJECT": "inbound.message.*.*.{conversation}"},
        "DELETE FROM messages WHERE provider_message_id = 'in-the-conversation'",
    ),
    (
        "republish",
        {"STREAM": "EVENTS", "SUBJECT": "events.sms.*"},
        "DELETE FROM message_events WHERE attempt > 0",
    ),
    (
        "republish",
        {"STREAM": "DEADLETTER", "SUBJECT": "deadletter.outbound.*"},
        "DELETE FROM dead_letters",
    ),
]
"""A command, its variables, and a statement that deletes the rows which the command restores."""


async def test_replays_restore_lost_rows_and_change_nothing_else(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext, database_url: str
) -> None:
    await stack.send(body="{{Count}} $(ls) `x` \\ ü\n\n")
    [message, *_] = await exchange(stack)
    conversation = message["conversation_key"]
    await stack.sms.inbound(
        **{"from": "+18045551234", "to": "+12016661234", "messaging_provider_id": "in-the-conversation"}
    )
    await until_idle(jetstream, database_url)
    began = json.loads(f'"{(await terminal.run("conversation-begin", CONVERSATION=conversation)).strip()}"')
    stored, shown, requests = await tables(database_url), await as_shown(stack), await stack.sms.stats()
    for block, given, deletion in REPLAYS:
        variables = {name: value.format(conversation=conversation) for name, value in given.items()}
        await terminal.run(block, SINCE=began, **variables)
        await until_idle(jetstream, database_url)
        assert await tables(database_url) == stored, (block, given)

        await execute(database_url, deletion)
        assert await as_shown(stack) != shown
        await terminal.run(block, SINCE=began, **variables)
        await until_idle(jetstream, database_url)
        assert await as_shown(stack) == shown, (block, given)
        assert await stack.sms.stats() == requests
        stored = await tables(database_url)


async def test_the_database_is_rebuilt_while_messages_are_sent(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext, database_url: str
) -> None:
    sent = [await stack.send(body=f"before {number}") for number in range(5)]
    await until_idle(jetstream, database_url)
    for stream in ("OUTBOUND", "EVENTS"):
        await terminal.run("purge-before", STREAM=stream, BEFORE=await time_of_last(jetstream, stream))
        assert (await jetstream.stream_info(stream)).state.messages == 1
    rebuilding = asyncio.create_task(terminal.run("rebuild"))
    while not rebuilding.done():
        sent.append(await stack.send(body=f"meanwhile {len(sent)}"))
    await rebuilding
    await terminal.run("drained")
    ids = [message["id"] for message in sent]
    found = await stack.items(f"/api/conversations/{sent[0]['conversation_key']}/messages")
    assert sorted(message["id"] for message in found) == sorted(ids)
    assert {message["status"] for message in found} == {"sent"}
    assert sorted(await accepted_by(stack)) == sorted(ids)


async def sent_and_delayed(stack: Stack) -> tuple[list[str], str]:
    """Send some messages, and one that waits for its second attempt; return their ids."""
    sent = [(await stack.send(body=f"number {number}"))["id"] for number in range(3)]
    for id_ in sent:
        await stack.message_becomes(id_, "sent")
    await stack.sms.behave(status=500)
    delayed = (await stack.send(to="+18045550000"))["id"]
    await stack.message_becomes(delayed, "retrying")
    return sent, delayed


async def test_a_restored_server_sends_due_messages_and_no_message_again(
    tmp_path: Path,
    terminal: Terminal,
    database_url: str,
    nats_url: str,
    other_nats: infrastructure.Server,
) -> None:
    backup = str(tmp_path / "backup")
    later = {"RETRY_DELAYS": "10"}
    async with running_stack(tmp_path, database_url=database_url, nats_url=nats_url, settings=later) as stack:
        sent, delayed = await sent_and_delayed(stack)
        await terminal.run("backup", BACKUP=backup)
    await terminal.run("restore", BACKUP=backup, NATS_URL=other_nats.url)
    client = await nats_client.connect(other_nats.url)
    jetstream = client.jetstream()
    ingest = await jetstream.consumer_info("OUTBOUND", "ingest-outbound")
    assert ingest.ack_floor is not None
    assert ingest.ack_floor.stream_seq == 4  # consumers are restored with their positions
    await execute(database_url, EVERYTHING)
    (tmp_path / "second").mkdir()
    async with running_stack(
        tmp_path / "second", database_url=database_url, nats_url=other_nats.url, settings=later
    ) as stack:
        for shard in sender_shards(Channel.SMS):
            await jetstream.reset_consumer("OUTBOUND", shard.name, 1)
        await terminal.run("replay-since", SINCE=LONG_AGO, NATS_URL=other_nats.url)
        for id_ in (*sent, delayed):
            await stack.message_becomes(id_, "sent")
        await until_idle(jetstream, database_url)
        assert await accepted_by(stack) == [delayed]
    await client.close()


async def test_a_restored_server_without_its_ledger_must_be_kept_from_sending(
    tmp_path: Path,
    terminal: Terminal,
    database_url: str,
    nats_url: str,
    other_nats: infrastructure.Server,
) -> None:
    backup = tmp_path / "backup"
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings={"RETRY_DELAYS": "10"}
    ) as stack:
        sent, delayed = await sent_and_delayed(stack)
        await terminal.run("backup", BACKUP=str(backup))
    client = await nats_client.connect(other_nats.url)
    jetstream = client.jetstream()
    await terminal.run("restore", BACKUP=str(backup), NATS_URL=other_nats.url)
    await jetstream.purge_stream("KV_DELIVERIES")
    await jetstream.reset_consumer("OUTBOUND", shard_of(await conversation_of(jetstream)), 1)
    await terminal.run("without-ledger", NATS_URL=other_nats.url)
    (tmp_path / "second").mkdir()
    async with running_stack(
        tmp_path / "second", database_url=database_url, nats_url=other_nats.url
    ) as stack:
        new = (await stack.send(body="new"))["id"]
        await stack.message_becomes(new, "sent")
        await until_idle(jetstream, database_url)
        assert await accepted_by(stack) == [new]

        # The document warns of this: only the ledger knows that these messages were sent.
        reset = {"STREAM": "OUTBOUND", "CONSUMER": shard_of(await conversation_of(jetstream))}
        await terminal.run("back-to-the-beginning", **reset, NATS_URL=other_nats.url)
        await until_idle(jetstream, database_url)
        assert await accepted_by(stack) == [new, *sent]
        assert delayed not in sent
    await client.close()


async def conversation_of(jetstream: JetStreamContext, sequence: int = 1) -> str:
    message = await jetstream.get_msg("OUTBOUND", sequence)
    key: str = json.loads(message.data or b"")["data"]["message"]["conversation_key"]
    return key


async def test_a_single_server_grows_to_a_cluster(tmp_path: Path, stack: Stack, terminal: Terminal) -> None:
    await stack.message_becomes((await stack.send())["id"], "sent")
    await terminal.run("drained")
    await terminal.run("backup", BACKUP=str(tmp_path / "backup"))
    async with running_cluster(tmp_path / "cluster") as cluster:
        here = {"NATS_URL": cluster.url, "BACKUP": str(tmp_path / "backup")}
        for declared in streams(replicas=3, max_bytes=-1):
            restore = partial(terminal.run, "restore-one", STREAM=str(declared.name), **here)
            await eventually(partial(succeeds, restore))
        await terminal.run("more-replicas", **here)
        await cluster.until_whole()
        client = await nats_client.connect(cluster.url.split(","))
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            assert stream.config.num_replicas == 3
        assert (await jetstream.stream_info("OUTBOUND")).state.messages == 1
        ingest = await jetstream.consumer_info("OUTBOUND", "ingest-outbound")
        assert ingest.config.num_replicas == 3
        assert ingest.ack_floor is not None
        assert ingest.ack_floor.stream_seq == 1
        await client.close()


async def succeeds(run: Callable[[], Awaitable[str]]) -> bool:
    """Return whether the command succeeds; the document says to repeat it if the server cannot restore."""
    try:
        await run()
    except AssertionError:
        return False
    return True


async def test_the_messages_of_a_conversation_are_shown(stack: Stack, terminal: Terminal) -> None:
    sent = [await stack.send(to=to, body=to) for to in ("+18045550001", "+18045550002", "+18045550001")]
    shown = await terminal.run("conversation", CONVERSATION=sent[0]["conversation_key"])
    assert [event["subject"] for event in objects_in(shown)] == [sent[0]["id"], sent[2]["id"]]


async def test_the_number_of_shards_is_changed_while_messages_are_sent(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext
) -> None:
    sent = [(await stack.send(body=f"before {number}"))["id"] for number in range(5)]
    changing = asyncio.create_task(terminal.run("shards"))
    while not changing.done():
        sent.append((await stack.send(body=f"meanwhile {len(sent)}"))["id"])
    await changing
    sent.append((await stack.send(body="after"))["id"])
    await terminal.run("drained")
    assert await accepted_by(stack) == sent
    names = [info.name for info in await jetstream.consumers_info("OUTBOUND")]
    assert len([name for name in names if name.startswith("sender-sms-transactional")]) == 16


async def test_purging_old_messages(stack: Stack, terminal: Terminal, jetstream: JetStreamContext) -> None:
    for number in range(3):
        await stack.send(body=f"number {number}")
    await terminal.run("drained")
    second = await jetstream.get_msg("OUTBOUND", 2)
    assert second.time is not None
    for before, first in ((LONG_AGO, 1), (second.time.isoformat(), 2), ("2099-01-01T00:00:00Z", 2)):
        await terminal.run("purge-before", STREAM="OUTBOUND", BEFORE=before)
        assert (await jetstream.stream_info("OUTBOUND")).state.first_seq == first


async def time_of_last(jetstream: JetStreamContext, stream: str) -> str:
    last = (await jetstream.stream_info(stream)).state.last_seq
    time = (await jetstream.get_msg(stream, last)).time
    assert time is not None
    return time.isoformat()


async def test_messages_that_are_not_processed_are_not_purged(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext
) -> None:
    await terminal.run("drained")
    await stack.processes["ingest"].end()
    for _ in range(2):
        await stack.send()
    before = await time_of_last(jetstream, "OUTBOUND")
    for stream in ("OUTBOUND", "SUPPRESSIONS"):
        purge = partial(terminal.run, "purge-before", STREAM=stream, BEFORE=before)
        assert not await succeeds(purge)
    assert (await jetstream.stream_info("OUTBOUND")).state.messages == 2


@pytest.mark.usefixtures("stack")
async def test_a_running_sender_does_not_lose_its_messages(
    terminal: Terminal, jetstream: JetStreamContext
) -> None:
    async def is_read() -> bool:
        consumers = await jetstream.consumers_info("OUTBOUND")
        return any(each.name.startswith("sender-") and each.num_waiting for each in consumers)

    await eventually(is_read)
    before = await jetstream.consumers_info("OUTBOUND")
    assert not await succeeds(partial(terminal.run, "without-ledger"))
    after = await jetstream.consumers_info("OUTBOUND")
    assert [each.delivered for each in after] == [each.delivered for each in before]


async def test_skipping_a_poison_message_and_sending_it_later(
    stack: Stack,
    terminal: Terminal,
    jetstream: JetStreamContext,
    nats_url: str,
    database_url: str,
    tmp_path: Path,
) -> None:
    await stack.processes["sender"].end()
    poison, after = [await stack.send(body=body) for body in ("poison", "after")]
    shard = shard_of(poison["conversation_key"])
    client = await nats_client.connect(nats_url)
    crashing = await client.subscribe("reader")  # as if the process that reads it crashed
    request = json.dumps({"batch": 1, "expires": 1_000_000_000, "group": PIN_GROUP}).encode()
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.OUTBOUND.{shard}", request, reply=crashing.subject)
    await crashing.next_msg()
    await client.close()
    kept = tmp_path / "poison.json"
    await terminal.run("skip", STREAM="OUTBOUND", CONSUMER=shard, SEQUENCE="1", FILE=str(kept))
    assert json.loads(kept.read_text())["seq"] == 1
    await stack.start("sender")
    await stack.message_becomes(after["id"], "sent")
    assert await accepted_by(stack) == [after["id"]]

    async def dead_letter() -> Any:  # noqa: ANN401 - any JSON
        return next(iter(await stack.items("/api/dead-letters")), None)

    found = await eventually(dead_letter)
    assert (found["message_id"], found["reason"]) == (poison["id"], "terminated")
    assert (await stack.post(f"/api/dead-letters/{found['id']}/replay", {})).is_success
    await stack.message_becomes(poison["id"], "sent")
    await until_idle(jetstream, database_url)
    assert await accepted_by(stack) == [after["id"], poison["id"]]


async def test_a_consumer_beyond_the_end_is_found_and_reset(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext, database_url: str
) -> None:
    await stack.message_becomes((await stack.send())["id"], "sent")
    assert await terminal.run("beyond-the-end") == ""
    await jetstream.reset_consumer("EVENTS", "ingest-events", 999)
    assert await terminal.run("beyond-the-end") == "EVENTS ingest-events\n"
    waiting = await stack.send()
    await until_idle(jetstream, database_url)
    assert (await stack.get(f"/api/messages/{waiting['id']}")).json()["status"] == "accepted"
    await terminal.run("back-to-the-beginning", STREAM="EVENTS", CONSUMER="ingest-events")
    assert await terminal.run("beyond-the-end") == ""
    await stack.message_becomes(waiting["id"], "sent")


async def test_a_provider_is_paused_until_it_accepts_our_credentials(
    tmp_path: Path, database_url: str, nats_url: str
) -> None:
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings={"BREAKER_PAUSE": "1"}
    ) as stack:

        async def paused(value: str) -> bool:
            page = (await stack.client.get(f"{stack.processes['sender'].url}/metrics")).text
            return f'messaging_provider_paused{{provider="generic_sms"}} {value}\n' in page

        await stack.sms.behave(status=401)
        refused = await stack.send()
        await eventually(lambda: paused("1.0"))
        await stack.message_becomes(refused["id"], "scheduled")
        await stack.sms.recover()
        await stack.message_becomes(refused["id"], "sent")
        await eventually(lambda: paused("0.0"))


async def test_a_pause_is_shown_and_ended_early(stack: Stack, terminal: Terminal) -> None:
    async def is_shown() -> bool:
        return '"provider":"generic_sms"' in await terminal.run("limits")

    await stack.sms.behave(status=429, retry_after=600)
    await stack.send()
    await eventually(is_shown)
    await stack.sms.recover()
    await terminal.run("end-pause", PROVIDER="generic_sms")
    sender = stack.processes["sender"]
    await sender.end()
    sender.start()
    sent = await stack.send()
    await stack.message_becomes(sent["id"], "sent")


async def test_the_positions_of_webhook_endpoints(
    tmp_path: Path, nats_url: str, database_url: str, terminal: Terminal
) -> None:
    settings = {
        "WEBHOOK_ENDPOINT_KEY": "a key of some length",
        "ALLOW_PRIVATE_WEBHOOKS": "true",
        "WEBHOOK_RETRY_DELAYS": "3600",
    }
    services = ("gateway", "ingest", "notifier")
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings, services=services
    ) as stack:
        created = await stack.post("/api/webhook-endpoints", {"url": "http://127.0.0.1:9/"})
        id_ = created.json()["id"]
        await stack.post(f"/api/webhook-endpoints/{id_}/test", None)

        async def is_shown() -> bool:
            shown = await terminal.run("webhooks", GATEWAY_URL=stack.gateway_url)
            return f"webhook.wait.{id_}." in shown and '{"after":0,"events":0,"retries":' in shown

        await eventually(is_shown)


async def test_following_a_message(stack: Stack, terminal: Terminal, tmp_path: Path) -> None:
    await stack.sms.behave(status=500, times=1)
    message = (await stack.send())["id"]
    await stack.message_becomes(message, "sent")
    followed = await terminal.run("follow", GATEWAY_URL=stack.gateway_url, MESSAGE=message)
    shown, *steps, ledger = objects_in(followed)
    assert [entry["status"] for entry in shown["history"]] == ["accepted", "retrying", "sent"]
    assert [step["type"].split(".")[2] for step in steps if step["stream"] == "EVENTS"] == [
        "retrying",
        "sent",
    ]
    assert {step["stream"] for step in steps} == {"OUTBOUND", "DELAYED", "EVENTS"}
    assert ledger["state"] == "sent"

    logged = {}
    for service in ("gateway", "sender"):
        lines = await terminal.run("follow-logs", MESSAGE=message, LOG=str(tmp_path / f"{service}.log"))
        logged[service] = [json.loads(line)["event"] for line in lines.splitlines()]
    assert logged == {
        "gateway": ["message_accepted"],
        "sender": ["attempt_failed", "message_retrying", "message_sent"],
    }


def objects_in(text: str) -> Sequence[Any]:
    """Return the JSON values that follow each other in the text."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found
