"""What the two generic providers have in common: a JSON payload, an idempotency key, an id in return."""

from collections.abc import Sequence
from typing import Any, ClassVar

import httpx

from shared.providers.base import File, Provider, RejectedError, is_provider_id
from shared.providers.http import post_json
from shared.events import Message


class GenericProvider(Provider):
    """POSTs a message to `{url}/messages`.

    Attributes:
        id_field: where the answer has the provider's id of the message.
    """

    id_field: ClassVar[str]
    honours_idempotency_keys = True
    takes_files = False

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = f"{url.rstrip('/')}/messages"

    def payload(self, message: Message) -> dict[str, Any]:
        return {
            "from": message.from_,
            "to": message.to,
            "body": message.body,
            "attachments": message.attachments,
            "timestamp": message.timestamp.isoformat().replace("+00:00", "Z"),
        }

    async def send(self, message: Message, files: Sequence[File]) -> str:  # noqa: ARG002 - it fetches URLs
        answer = await post_json(
            self._client,
            self._url,
            self.payload(message),
            headers={"Idempotency-Key": str(message.id)},
        )
        provider_message_id = answer.get(self.id_field)
        if not is_provider_id(provider_message_id):
            raise RejectedError("unreadable_answer", f"the answer has no usable {self.id_field}")
        return provider_message_id
