"""The generic providers' send API: a JSON payload, an idempotency key, an id in return."""

from collections.abc import Sequence
from typing import Any, ClassVar

from shared.message import Message
from shared.providers.base import Adapter, File, HttpAnswer, HttpRequest, S


class GenericAdapter(Adapter[S]):
    """Posts a message to `{url}/messages`.

    Attributes:
        url: the base URL of the provider.
        id_field: the field of the response that has the provider's message id.
    """

    honours_idempotency_keys = True
    url: str
    id_field: ClassVar[str]

    def payload(self, message: Message) -> dict[str, Any]:
        return {
            "from": message.from_,
            "to": message.to,
            "body": message.body,
            "attachments": message.attachments,
            "timestamp": message.timestamp.isoformat().replace("+00:00", "Z"),
        }

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:  # noqa: ARG002 - it fetches URLs
        headers = {"Idempotency-Key": str(message.id)}
        return HttpRequest.json(f"{self.url.rstrip('/')}/messages", self.payload(message), headers)

    def message_id(self, answer: HttpAnswer) -> object:
        return answer.field(self.id_field)
