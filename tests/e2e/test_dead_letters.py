"""Dead letters, through the API and with the commands of docs/dead-letters.md."""

from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from shared.bus.topology import Stream
from tests import messages
from tests.documents import ROOT, Terminal, need
from tests.e2e.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def terminal(nats_url: str, tmp_path: Path) -> Terminal:
    need("nats", "jq", "python3")
    return Terminal(ROOT / "docs" / "dead-letters.md", {"NATS_URL": nats_url, "USER": "ann"}, tmp_path)


async def refused(stack: Stack, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of a message
    """Send a message that the provider refuses; return its dead letter."""
    await stack.sms.behave(status=400, times=1)
    message = await stack.message_becomes((await stack.send(**fields))["id"], "failed")
    return await dead_letter(stack, message_id=message["id"])


async def dead_letter(stack: Stack, **filter_: str) -> dict[str, Any]:
    async def look() -> list[dict[str, Any]]:
        return await stack.items("/api/dead-letters", state="open", **filter_)

    [letter] = await eventually(look)
    return letter


async def becomes(stack: Stack, letter: dict[str, Any], state: str) -> dict[str, Any]:
    """Wait until the dead letter is in this state and has a resolution; return it."""

    async def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = (await stack.get(f"/api/dead-letters/{letter['id']}")).json()
        return shown if shown["state"] == state and shown["resolution"] else None

    shown = await eventually(look)
    assert shown is not None
    return shown


async def test_after_an_outage_a_few_calls_replay_everything(stack: Stack) -> None:
    await stack.sms.behave(status=400)
    sent = [(await stack.send(body=f"number {number}"))["id"] for number in range(20)]
    for id_ in sent:
        await stack.message_becomes(id_, "failed")
    await stack.sms.recover()
    discarded = await dead_letter(stack, message_id=sent[0])
    discard = await stack.post(f"/api/dead-letters/{discarded['id']}/discard", {"reason": "outdated"})
    assert discard.status_code == 202, discard.text
    await becomes(stack, discarded, "discarded")

    resolved, cursor = 0, None
    while True:
        body = {"filter": {"reason": "http_400"}, "limit": 7, "cursor": cursor}
        response = await stack.post("/api/dead-letters/replay", body)
        assert response.status_code == 202, response.text
        resolved += response.json()["resolved"]
        if (cursor := response.json()["next_cursor"]) is None:
            break

    assert resolved == 19
    for id_ in sent[1:]:
        await stack.message_becomes(id_, "sent")
    assert {each["payload"]["body"] for each in await stack.sms.messages()} == {
        f"number {number}" for number in range(1, 20)
    }
    shown = (await stack.get(f"/api/dead-letters/{discarded['id']}")).json()
    assert shown["resolution"]["reason"] == "outdated"
    assert [entry["status"] for entry in shown["history"]] == ["accepted", "failed"]


@pytest.mark.parametrize("action", ["replay", "discard"])
async def test_a_message_that_crashed_its_consumer_can_be_replayed_or_discarded(
    stack: Stack, jetstream: JetStreamContext, action: str
) -> None:
    await jetstream.add_consumer(
        Stream.OUTBOUND, ConsumerConfig(durable_name="fragile", ack_wait=0.1, max_deliver=1)
    )
    subscription = await jetstream.pull_subscribe_bind("fragile", Stream.OUTBOUND)
    message = await stack.send()
    await subscription.fetch(1)  # and never acknowledge
    with pytest.raises(TimeoutError):
        await subscription.fetch(1, timeout=1)  # the server notices at the next request
    letter = await dead_letter(stack, reason="max_deliver_exceeded")
    assert letter["message_id"] == message["id"]

    body: dict[str, Any] = {"filter": {"message_id": message["id"]}}
    if action == "discard":
        body["reason"] = "outdated"
    response = await stack.post(f"/api/dead-letters/{action}", body)

    assert response.json() == {"resolved": 1, "skipped": [], "next_cursor": None}
    await becomes(stack, letter, f"{action}ed")


async def test_a_message_is_replayed_with_the_commands_of_the_page(stack: Stack, terminal: Terminal) -> None:
    letter = await refused(stack, body='"quoted" {{Count}} é')

    listed = await terminal.run("list", "open")
    assert [line.split("\t")[0] for line in listed.splitlines() if "\t" in line] == [letter["id"]]
    replay = ("show", "event-id", "replay", "say-replayed")
    for _ in range(2):
        await terminal.run(*replay, id=letter["id"])

    await stack.message_becomes(letter["message_id"], "sent")
    shown = await becomes(stack, letter, "replayed")
    assert (shown["resolution"]["by"], shown["resolution"]["reason"]) == ("ann", None)
    assert [entry["generation"] for entry in shown["history"]] == [0, 0, 1, 1]
    assert [each["payload"]["body"] for each in await stack.sms.messages()] == ['"quoted" {{Count}} é']
    assert "\t" not in await terminal.run("list", "open")
    again = await stack.post(f"/api/dead-letters/{letter['id']}/replay", None)
    assert again.status_code == 409


async def test_replays_by_the_api_and_with_the_commands_are_one_replay(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext
) -> None:
    letter = await refused(stack)
    await terminal.run("list", "open")
    await stack.post(f"/api/dead-letters/{letter['id']}/replay", None)
    before = {
        stream: (await jetstream.stream_info(stream)).state.last_seq for stream in ("OUTBOUND", "DEADLETTER")
    }

    steps = ("show", "event-id", "replay", "say-replayed")
    await terminal.run(*steps, id=letter["id"])

    for stream, last in before.items():
        assert (await jetstream.stream_info(stream)).state.last_seq == last


@pytest.mark.parametrize("payload", [b'{"type": "v9", "text": "{{Count}} \\u00e9"}\n', b"\xff\x00 no text"])
async def test_an_unreadable_message_is_put_back_with_the_commands_of_the_page(
    stack: Stack, terminal: Terminal, jetstream: JetStreamContext, payload: bytes
) -> None:
    subject = f"inbound.message.sms.7.{messages.message().conversation_key}"
    await jetstream.publish(subject, payload)
    letter = await dead_letter(stack, direction="inbound")

    steps = ("list", "open", "show", "event-id", "put-back", "say-replayed")
    await terminal.run(*steps, id=letter["id"])

    back = await jetstream.get_msg(Stream.INBOUND, 2)
    assert (back.subject, back.data) == (subject, payload)
    await becomes(stack, letter, "replayed")


async def test_a_dead_letter_is_discarded_with_the_commands_of_the_page(
    stack: Stack, terminal: Terminal
) -> None:
    letter = await refused(stack)
    reason = """it's "done" """

    await terminal.run("list")
    with pytest.raises(AssertionError, match="there is no dead letter mistyped"):
        await terminal.run("show", id="mistyped")
    with pytest.raises(AssertionError, match="event_id: command not found"):
        await terminal.run("show", "discard", id=letter["id"], reason=reason)
    assert (await stack.get(f"/api/dead-letters/{letter['id']}")).json()["state"] == "open"
    await terminal.run("list", "open", "show", "event-id", "discard", id=letter["id"], reason=reason)

    shown = await becomes(stack, letter, "discarded")
    assert (shown["resolution"]["by"], shown["resolution"]["reason"]) == ("ann", reason)
