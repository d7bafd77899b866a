"""The AsyncAPI document: the streams that can be read and replayed with the NATS CLI, and their events."""

from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import models_json_schema

from services.gateway.http.docstrings import describe_attributes
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.events import EventType, model_of
from shared.ids import PARTITIONS
from shared.message import Priority
from shared.status import Status
from shared.version import VERSION

INTERNAL = {Stream.ADVISORIES, Stream.NOTIFICATIONS, Stream.WEBHOOK_RETRIES, Stream.WEBHOOK_ATTEMPTS}
"""The streams that only the services read; applications read notifications as events of the HTTP API."""

EVENT_TYPES = [type_ for type_ in EventType if type_ is not EventType.WEBHOOK_ATTEMPTED]
"""The types of the events in the other streams."""

_CONTENT_TYPE = "application/cloudevents+json"
_DESCRIPTION = """\
The streams are the log of everything that happened. They can be read with the NATS CLI, for example with
`nats stream view INBOUND`, and replayed without sending anything twice. Events are CloudEvents 1.0 in
structured JSON mode. Their `id` follows from what happened, so an event that is published twice counts as
one. Applications use the HTTP API to learn what happens.
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subjects of some events in a stream; the parts in braces vary."""

    name: str
    stream: Stream
    address: str
    summary: str
    types: tuple[EventType, ...]


SUBJECTS = (
    Subject(
        "inboundMessages",
        Stream.INBOUND,
        "inbound.message.{channel}.{partition}.{conversation_key}",
        "Messages that providers have delivered",
        (EventType.MESSAGE_RECEIVED,),
    ),
    Subject(
        "inboundReceipts",
        Stream.INBOUND,
        "inbound.receipt.{channel}.{provider}",
        "Delivery receipts of providers",
        (EventType.RECEIPT_RECEIVED,),
    ),
    Subject(
        "outboundMessages",
        Stream.OUTBOUND,
        "outbound.{channel}.{priority}.{partition}.{conversation_prefix}",
        "Messages that were accepted for sending, and replays of their dead letters",
        (EventType.MESSAGE_ACCEPTED,),
    ),
    Subject(
        "delayedWaiting",
        Stream.DELAYED,
        "delayed.wait.{message_id}",
        "Attempts that are not due yet; the server publishes each one to another subject when it is due",
        (EventType.DELIVERY_DUE,),
    ),
    Subject(
        "delayedDue",
        Stream.DELAYED,
        "delayed.due.{channel}.{partition}.{conversation_key}.{message_id}",
        "Attempts that are due",
        (EventType.DELIVERY_DUE,),
    ),
    Subject(
        "statusEvents",
        Stream.EVENTS,
        "events.{channel}.{status}",
        "The status of each message",
        (
            EventType.MESSAGE_SCHEDULED,
            EventType.MESSAGE_RETRYING,
            EventType.MESSAGE_SENT,
            EventType.MESSAGE_FAILED,
            EventType.MESSAGE_EXPIRED,
            EventType.MESSAGE_CANCELED,
        ),
    ),
    Subject(
        "mediaReports",
        Stream.EVENTS,
        "events.{channel}.media",
        "The media of inbound messages that were fetched, or could not be",
        (EventType.MEDIA_REPORTED,),
    ),
    Subject(
        "deadLetters",
        Stream.DEADLETTER,
        "deadletter.{direction}.{channel}",
        "Messages that could not be processed",
        (EventType.DEAD_LETTER_CREATED,),
    ),
    Subject(
        "deadLetterResolutions",
        Stream.DEADLETTER,
        "deadletter.resolved.{channel}",
        "Decisions about dead letters",
        (EventType.DEAD_LETTER_RESOLVED,),
    ),
    Subject(
        "suppressions",
        Stream.SUPPRESSIONS,
        "suppression.{channel}.{suppression_key}",
        "Opt-outs and opt-ins; the last event of a subject applies",
        (EventType.SUPPRESSION_CHANGED,),
    ),
)

_PARAMETERS: dict[str, dict[str, Any]] = {
    "channel": {"enum": [*Channel]},
    "priority": {"enum": [*Priority]},
    "status": {"enum": [*Status]},
    "direction": {"enum": ["inbound", "outbound"]},
    "partition": {"description": f"A number below {PARTITIONS}, computed from the conversation"},
    "conversation_key": {"description": "Key of the conversation"},
    "conversation_prefix": {"description": "The first two digits of the key of the conversation"},
    "message_id": {"description": "Id of the message"},
    "provider": {"description": "Name of the provider, such as `twilio`"},
    "suppression_key": {"description": "Computed from the channel and both addresses"},
}


def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    models = [(model_of(type_), "serialization") for type_ in EVENT_TYPES]
    _, definitions = models_json_schema(
        list(dict.fromkeys(models)),  # type: ignore[arg-type] # the mode is a literal
        ref_template="#/components/schemas/{model}",
    )
    describe_attributes(definitions["$defs"])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Streams of the messaging service",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": _CONTENT_TYPE,
        "servers": {"nats": {"host": "localhost:4222", "protocol": "nats", "description": "NATS JetStream"}},
        "channels": {subject.name: _channel(subject) for subject in SUBJECTS},
        "operations": {f"read_{subject.name}": _operation(subject) for subject in SUBJECTS},
        "components": {
            "messages": {type_.value: _message(type_) for type_ in EVENT_TYPES},
            "schemas": definitions["$defs"],
        },
    }


def _channel(subject: Subject) -> dict[str, Any]:
    names = [token[1:-1] for token in subject.address.split(".") if token.startswith("{")]
    return {
        "address": subject.address,
        "title": subject.summary,
        "description": f"In the stream `{subject.stream}`.",
        "messages": {
            type_.value: {"$ref": f"#/components/messages/{type_.value}"} for type_ in subject.types
        },
        "parameters": {name: _PARAMETERS[name] for name in names},
    }


def _operation(subject: Subject) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{subject.name}"},
        "summary": subject.summary,
    }


def _message(type_: EventType) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_schema_name(type_)}"}
    return {
        "name": type_.value,
        "contentType": _CONTENT_TYPE,
        "payload": {"allOf": [schema, {"properties": {"type": {"const": type_.value}}}]},
    }


def _schema_name(type_: EventType) -> str:
    """Return the name that pydantic gives the schema of the events of a type."""
    data = model_of(type_).model_fields["data"].annotation
    return f"Event_{getattr(data, '__name__', data)}_"
