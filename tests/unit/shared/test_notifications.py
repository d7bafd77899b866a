"""Notifications, and docs/events.md, which describes the events that follow from them."""

import json
import re
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from shared.channels import Channel
from shared.ids import EventId
from shared.notifications import MEANINGS, Notification, NotificationFilter, NotificationType
from shared.resources.events import AnyEvent, Event
from tests import messages

DOCUMENT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
KINDS: list[type[Event]] = list(get_args(get_args(AnyEvent)[0]))
KIND_OF = {type_: kind for kind in KINDS for type_ in get_args(kind.model_fields["type"].annotation)}


def test_the_catalogue_lists_all_types_with_their_data_and_meaning() -> None:
    expected = []
    for type_ in NotificationType:
        data = KIND_OF[type_].model_fields["data"].annotation
        name = data.__name__ if isinstance(data, type) and not get_args(data) else "the endpoint"
        expected.append(f"| `{type_}` | {name if ' ' in name else f'`{name}`'} | {MEANINGS[type_]} |")
    assert re.findall(r"(?m)^\| `\w+\..*$", DOCUMENT) == expected


def test_the_example_is_an_event() -> None:
    [example] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    event: Event = TypeAdapter(AnyEvent).validate_json(example)
    assert json.loads(event.encode()) == json.loads(example)


def notification(channel: Channel | None, address: str | None) -> Notification:
    return Notification(
        id=EventId(uuid4()),
        type=NotificationType.MESSAGE_SENT,
        occurred_at=messages.now(),
        channel=channel,
        our_address=address,
    )


@pytest.mark.parametrize(
    ("selected", "is_selected"),
    [
        (NotificationFilter(), True),
        (NotificationFilter(types={NotificationType.MESSAGE_SENT}), True),
        (NotificationFilter(types={NotificationType.MESSAGE_FAILED}), False),
        (NotificationFilter(channels={Channel.SMS}, addresses={"+1"}), True),
        (NotificationFilter(channels={Channel.EMAIL}), False),
        (NotificationFilter(addresses={"+2"}), False),
    ],
)
def test_a_filter_selects_what_meets_all_conditions(selected: NotificationFilter, is_selected: bool) -> None:  # noqa: FBT001
    assert selected.selects(notification(Channel.SMS, "+1")) is is_selected


def test_what_concerns_all_channels_and_addresses_is_always_selected() -> None:
    selected = NotificationFilter(channels={Channel.SMS}, addresses={"+1"})
    assert selected.selects(notification(None, None))


def test_a_notification_is_the_same_after_it_was_published() -> None:
    sent = notification(Channel.SMS, "+1")
    assert Notification.model_validate_json(sent.encode()) == sent
