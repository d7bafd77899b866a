"""Any reports about a message, and what should become of it by them: the order, said in Python."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from hypothesis import strategies as st

from shared.events import Event, Message, MessageAccepted, ReceiptReceived, StatusChanged
from shared.ids import MessageId
from shared.lifecycle import Status
from tests.integration.ingest.stories import NOON, accepted, receipt, status

_ROUNDS = st.integers(0, 2)
_TOLD = st.sampled_from([Status.SCHEDULED, Status.RETRYING, Status.SENT, Status.FAILED, Status.EXPIRED])
_RECEIPTS = st.sampled_from([Status.DELIVERED, Status.UNDELIVERED])
_MOMENTS = st.integers(0, 3).map(lambda number: NOON + timedelta(minutes=number))

Weight = tuple[int, int, int]
"""Round, precedence, attempt."""


def reports(about: Message) -> st.SearchStrategy[list[Event]]:
    """Any reports about a message, each at most once.

    They need not make sense together: the order is to tell them apart all the same.
    """
    return st.lists(_reports(about), max_size=8, unique_by=lambda event: event.id)


@st.composite
def _reports(draw: st.DrawFn, about: Message) -> Event:
    at = draw(_MOMENTS)
    match draw(st.sampled_from(["accepted", "told", "told", "receipt"])):
        case "accepted":
            return accepted(about, generation=draw(_ROUNDS)).model_copy(update={"time": at})
        case "told":
            told = status(about.id, draw(_TOLD), generation=draw(_ROUNDS), attempt=draw(st.integers(1, 3)))
            return told.model_copy(update={"time": at})
        case _:
            event = receipt(about.id, draw(_RECEIPTS))
            return event.model_copy(update={"data": event.data.model_copy(update={"occurred_at": at})})


def status_after(message_id: MessageId, events: Iterable[Event]) -> Status:
    """Tell what a message has come to; it was accepted, whether or not that is among its events."""
    return deciding(message_id, events)[1]


def deciding(message_id: MessageId, events: Iterable[Event]) -> tuple[Weight, Status]:
    """Tell which status counts and the weight that it has."""
    found = list(_weighed(message_id, list(events)))
    if not found:
        return (0, Status.ACCEPTED.precedence, 0), Status.ACCEPTED
    heaviest = max(weight for weight, *_ in found)
    *_, first = min((at, str(id_), status) for weight, at, id_, status in found if weight == heaviest)
    return heaviest, first


def _weighed(message_id: MessageId, events: list[Event]) -> Iterable[tuple[Weight, datetime, object, Status]]:
    sent = [
        event.data
        for event in events
        if isinstance(event, StatusChanged) and event.data.status is Status.SENT
    ]
    for event in events:
        match event:
            case MessageAccepted(data=request) if request.message.id == message_id:
                yield (request.generation, Status.ACCEPTED.precedence, 0), event.time, event.id, Status.ACCEPTED
            case StatusChanged(data=report) if report.message_id == message_id:
                weight = report.generation, report.status.precedence, report.attempt
                yield weight, event.time, event.id, report.status
            case ReceiptReceived(data=of):
                for report in sent:
                    if report.message_id == message_id and (report.provider, report.provider_message_id) == (
                        of.provider,
                        of.provider_message_id,
                    ):
                        yield (
                            (report.generation, of.status.precedence, report.attempt),
                            of.occurred_at,
                            event.id,
                            of.status,
                        )
