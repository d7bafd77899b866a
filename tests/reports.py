"""Arbitrary reports on a message, and a model of the status that follows from them."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from shared.events import Event, accepted_status
from shared.ids import MessageId
from shared.message import DeliveryRequest, IncomingReceipt, Message, StatusReport
from shared.status import Status
from tests.events import NOON, accepted, receipt, status_changed

_GENERATIONS = st.integers(0, 2)
_REPORTED = st.sampled_from([Status.SCHEDULED, Status.RETRYING, Status.SENT, Status.FAILED, Status.EXPIRED])
_RECEIPTS = st.sampled_from([Status.DELIVERED, Status.UNDELIVERED])
_TIMES = st.integers(0, 3).map(lambda number: NOON + timedelta(minutes=number))

Weight = tuple[int, int, int]
"""The generation, the precedence and the attempt of a report."""


def reports(message: Message) -> st.SearchStrategy[list[Event[Any]]]:
    """Return arbitrary reports on a message, each at most once.

    They need not be plausible together: their order has to be defined in any case.
    """
    return st.lists(_report(message), max_size=8, unique_by=lambda event: event.id)


@st.composite
def _report(draw: st.DrawFn, message: Message) -> Event[Any]:
    time = draw(_TIMES)
    match draw(st.sampled_from(["accepted", "status", "status", "receipt"])):
        case "accepted":
            return accepted(message, generation=draw(_GENERATIONS)).model_copy(update={"time": time})
        case "status":
            event = status_changed(
                message.id, draw(_REPORTED), generation=draw(_GENERATIONS), attempt=draw(st.integers(1, 3))
            )
            return event.model_copy(update={"time": time})
        case _:
            of_provider = receipt(message.id, draw(_RECEIPTS))
            data = of_provider.data.model_copy(update={"occurred_at": time})
            return of_provider.model_copy(update={"data": data})


def status_after(message_id: MessageId, events: Sequence[Event[Any]]) -> Status:
    """Return the status of a message; it was accepted, even if that is not among its events."""
    return deciding_report(message_id, events)[1]


def deciding_report(message_id: MessageId, events: Sequence[Event[Any]]) -> tuple[Weight, Status]:
    """Return the weight and the status of the decisive report."""
    found = list(_weigh(message_id, events))
    if not found:
        return (0, Status.ACCEPTED.precedence, 0), Status.ACCEPTED
    heaviest = max(weight for weight, *_ in found)
    decisive = [report for report in found if report[0] == heaviest]
    latest = max(time for _, time, *_ in decisive)
    *_, status = min((str(id_), status) for _, time, id_, status in decisive if time == latest)
    return heaviest, status


def _weigh(
    message_id: MessageId, events: Sequence[Event[Any]]
) -> Iterable[tuple[Weight, datetime, object, Status]]:
    sent = [
        event.data
        for event in events
        if isinstance(event.data, StatusReport) and event.data.status is Status.SENT
    ]
    for event in events:
        match event.data:
            case DeliveryRequest() as request if request.message.id == message_id:
                status = accepted_status(event)
                yield (request.generation, status.precedence, 0), event.time, event.id, status
            case StatusReport() as report if report.message_id == message_id:
                weight = report.generation, report.precedence, report.attempt
                yield weight, event.time, event.id, report.status
            case IncomingReceipt() as of:
                for report in sent:
                    if report.message_id == message_id and (report.provider, report.provider_message_id) == (
                        of.provider,
                        of.provider_message_id,
                    ):
                        weight = report.generation, of.precedence, report.attempt
                        yield weight, of.occurred_at, event.id, of.status
