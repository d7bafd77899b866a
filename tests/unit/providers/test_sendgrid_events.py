"""SendGrid's Event Webhook: receipts and opt-outs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel
from shared.events import receipt_id
from shared.message import IncomingReceipt
from shared.providers.sendgrid.events import AcceptedEvents
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    WebhookContent,
)
from shared.status import Status
from tests.unit.providers.parsing import (
    NOW,
    fuzzed,
    json_bytes,
    parse,
    require_tolerated,
    some_json,
    webhook_at,
)
from tests.webhooks import (
    DELIVERED,
    JSON,
    SENDGRID_EVENTS,
    events,
)


def parse_events(*given_events: object) -> WebhookContent:
    return parse(SENDGRID_EVENTS, events(*given_events), JSON)


def parse_receipt(**changes: object) -> IncomingReceipt:
    [receipt] = parse_events({**DELIVERED, **changes}).receipts
    return receipt


def test_a_delivered_email() -> None:
    receipt = parse_receipt()

    assert (receipt.channel, receipt.provider, receipt.provider_message_id) == (
        Channel.EMAIL,
        "sendgrid",
        "X-1",
    )
    assert str(receipt.message_id) == DELIVERED["message_id"]
    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.DELIVERED, None, None)
    assert receipt.occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)
    assert receipt.raw == DELIVERED


@pytest.mark.parametrize(
    ("event", "code", "detail"),
    [
        (
            {"event": "bounce", "status": "5.1.1", "reason": "550 no\r\n such user"},
            "5.1.1",
            "550 no such user",
        ),
        ({"event": "bounce", "type": "blocked"}, "bounce", None),
        ({"event": "dropped", "reason": "Bounced Address"}, "dropped", "Bounced Address"),
        ({"event": "dropped", "status": ["?"], "reason": {"a": 1}}, "['?']", "{'a': 1}"),
        ({"event": "bounce", "status": "x" * 99, "reason": "\x00y" * 900}, "x" * 64, "\ufffdy" * 250),
    ],
)
def test_an_undelivered_email_has_a_reason(event: dict[str, Any], code: str, detail: str | None) -> None:
    receipt = parse_receipt(**event)

    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.UNDELIVERED, code, detail)


@pytest.mark.parametrize(
    "kind",
    ["processed", "deferred", "open", "click", "spamreport", "unsubscribe", "group_unsubscribe",
     "group_resubscribe", "account_status_change"],
)  # fmt: skip
def test_other_events_are_not_receipts(kind: str) -> None:
    assert parse_events({**DELIVERED, "event": kind}, {"event": kind}).receipts == []


def test_an_event_of_an_unknown_kind_is_kept() -> None:
    receipt = parse_receipt(event="Something New", reason="as it was")

    assert receipt.status is Status.UNKNOWN
    assert (receipt.error_code, receipt.error_detail) == ("something new", "as it was")


@pytest.mark.parametrize(
    ("event", "state", "source"),
    [
        ({"event": "bounce", "type": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce", "sg_message_id": None, "message_id": None}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Bounced Address"}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, "opted_out", "unsubscribe"),
        ({"event": "dropped", "reason": "Spam Reporting Address"}, "opted_out", "spam_report"),
        ({"event": "spamreport"}, "opted_out", "spam_report"),
        ({"event": "unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "group_unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "Bounce"}, "opted_out", "bounce"),
        ({"event": "spamreport", "asm_group_id": 7}, "opted_out", "spam_report"),
        ({"event": "unsubscribe", "asm_group_id": 7}, "opted_out", "unsubscribe"),
        ({"event": "dropped", "reason": "Bounced Address", "asm_group_id": 7}, "opted_out", "bounce"),
    ],
)
def test_an_event_may_opt_out_from_all_our_addresses(event: dict[str, Any], state: str, source: str) -> None:
    [change] = parse_events({**DELIVERED, "email": "Ann@Example.com", **event}).suppressions

    assert (change.channel, change.ours, change.theirs) == (Channel.EMAIL, None, "ann@example.com")
    assert (change.state, change.source) == (state, source)
    assert change.occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "bounce", "type": "blocked"},
        {"event": "dropped", "reason": "Invalid"},
        {"event": "delivered"},
        {"event": "unsubscribe", "email": "nobody"},
        {"event": "unsubscribe", "email": None},
    ],
)
def test_other_events_do_not_opt_out(event: dict[str, Any]) -> None:
    assert parse_events({**DELIVERED, **event}).suppressions == []


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ({"event": "group_unsubscribe", "asm_group_id": 7}, "opted_out"),
        ({"event": "group_resubscribe", "asm_group_id": "7"}, "opted_in"),
        ({"event": "dropped", "reason": "Unsubscribed Address", "asm_group_id": 7}, "opted_out"),
    ],
)
def test_an_event_about_a_group_concerns_no_other_emails(event: dict[str, Any], state: str) -> None:
    [change] = parse_events({**DELIVERED, **event}).suppressions

    assert (change.ours, change.state) == ("sendgrid:7", state)


@pytest.mark.parametrize("group", [None, "", 0, -7, 7.5, "seven", [7], "9" * 5_000])
def test_a_resubscription_to_no_group_lifts_nothing(group: object) -> None:
    content = parse_events({**DELIVERED, "event": "group_resubscribe", "asm_group_id": group})

    assert content.suppressions == []
    assert [[fault.field for fault in faults] for faults in content.invalid] == [["asm_group_id"]]


@pytest.mark.parametrize("time", [None, "now", True, 10**30, -(10**30), float("1e308"), [], "", "nan"])
def test_an_event_without_a_valid_time_counts_from_its_arrival(time: object) -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "timestamp": time})

    assert [receipt.occurred_at for receipt in content.receipts] == [NOW]
    assert [change.occurred_at for change in content.suppressions] == [NOW]


@pytest.mark.parametrize("time", [1_730_469_600, "1730469600", 1_730_469_600.0, 1_730_469_600_000])
def test_the_time_of_an_event(time: object) -> None:
    assert parse_receipt(timestamp=time).occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)


def test_a_text_that_is_cut_within_a_character_is_kept() -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "reason": "no \ud83d", "\ud800": 1})

    assert [receipt.error_detail for receipt in content.receipts] == ["no \ufffd"]
    assert [change.source for change in content.suppressions] == ["bounce"]
    assert content.invalid == []


def test_a_bounce_of_an_unreadable_address_is_still_a_receipt() -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "email": "nobody"})

    assert (len(content.receipts), len(content.suppressions), len(content.invalid)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("given_id", "id_"),
    [
        ("X-1.recvd-5f-1.0", "X-1"),
        ("X-1.f", "X-1"),
        ("X-1", "X-1"),
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "14c5d75ce93.dfd.64b469"),
        ("a.b.c.recvd-5f-1.0", "a.b.c"),
        ("a.b.geopod-ismtpd-3-0", "a.b"),
        (5, DELIVERED["message_id"]),
    ],
)
def test_the_id_in_the_response_may_have_dots(given_id: object, id_: str) -> None:
    assert parse_receipt(sg_message_id=given_id).provider_message_id == id_


def test_an_opt_out_from_the_future_counts_from_now() -> None:
    future = int(NOW.timestamp()) + 1_000
    [change] = parse_events({**DELIVERED, "event": "spamreport", "timestamp": future}).suppressions

    assert change.occurred_at == NOW


def test_an_event_is_identified_by_its_id() -> None:
    first, again, other = (
        receipt_id(parse_receipt(**changes)) for changes in ({}, {"timestamp": 1}, {"sg_event_id": "event-2"})
    )

    assert first == again != other


@pytest.mark.parametrize("own_id", [None, 5, "", "order-5", ["x"], "\u0000"])
def test_an_id_that_is_not_ours_is_ignored(own_id: object) -> None:
    assert parse_receipt(message_id=own_id).message_id is None


def test_an_event_may_lack_the_id_of_sendgrid() -> None:
    assert str(parse_receipt(sg_message_id=None).message_id) == DELIVERED["message_id"]


BAD_EVENTS: list[object] = [
    None,
    5,
    "delivered",
    [],
    {},
    {**DELIVERED, "event": None},
    {**DELIVERED, "event": ["delivered"]},
    {**DELIVERED, "sg_message_id": "", "message_id": None},
    {**DELIVERED, "extra": "x" * 300_000},
]


@pytest.mark.parametrize("bad", BAD_EVENTS, ids=str)
def test_an_invalid_event_does_not_affect_the_others(bad: object) -> None:
    content = parse_events(DELIVERED, bad, {**DELIVERED, "sg_event_id": "2"})

    assert (len(content.receipts), len(content.suppressions), len(content.invalid)) == (2, 0, 1)
    answer = webhook_at(SENDGRID_EVENTS).respond(content)
    assert answer == AcceptedEvents(receipts=2, suppressions=0, invalid=1)


def test_a_wrong_character_in_an_event_does_not_affect_the_others() -> None:
    events = json_bytes([{**DELIVERED, "reason": "?"}, {**DELIVERED, "sg_event_id": "2"}])

    content = parse(SENDGRID_EVENTS, events.replace(b"?", b"caf\xe9"), JSON)

    assert len(content.receipts) == 2


@pytest.mark.parametrize("body", [b"{}", b"null", b"5", b'"x"'])
def test_events_must_be_in_an_array(body: bytes) -> None:
    with pytest.raises(InvalidWebhookError):
        parse(SENDGRID_EVENTS, body, JSON)


@pytest.mark.parametrize("body", [b"", b"[", b"\xff", b"[" * 100_000])
def test_events_must_be_json(body: bytes) -> None:
    with pytest.raises(UnreadableWebhookError):
        parse(SENDGRID_EVENTS, body, JSON)


def test_a_batch_of_events_may_be_larger_than_other_webhooks() -> None:
    batch = [{**DELIVERED, "sg_event_id": f"event-{number}", "url": "x" * 500} for number in range(900)]

    assert len(events(*batch)) <= webhook_at(SENDGRID_EVENTS).max_size
    assert len(parse_events(*batch).receipts) == 900


@fuzzed
@given(st.lists(some_json | st.dictionaries(st.sampled_from(sorted(DELIVERED)), some_json), max_size=4))
def test_any_events_are_tolerated(batch: list[Any]) -> None:
    require_tolerated(SENDGRID_EVENTS, json.dumps(batch).encode(), JSON)
