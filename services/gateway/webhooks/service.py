"""Publishes the content of webhooks. Once `publish` has returned, it is stored in the streams."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from services.gateway.http.deadline import deadline
from services.gateway.http.errors import WEBHOOKS
from services.gateway.webhooks.dead_letters import dead_letter_of, posted
from services.gateway.webhooks.parsing import parse_webhook
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import (
    Stream,
    dead_letter_subject,
    inbound_message_subject,
    inbound_receipt_subject,
)
from shared.channels import Channel
from shared.dead_letters import PostedWebhook
from shared.errors import MediaStoreUnavailableError
from shared.events import dead_letter_created, message_received, receipt_received
from shared.ids import DeadLetterId
from shared.keywords import Keyword, Words, keyword_of
from shared.media import MediaStatus
from shared.media_store import MediaStore
from shared.message import IncomingMessage, IncomingReceipt
from shared.observability import tracing
from shared.observability.metrics import ACCEPTED, DEAD_LETTERS, RECEIPTS, REFUSED
from shared.providers.registry import webhook_at
from shared.providers.webhooks import WebhookContent, WebhookError, WebhookRequest
from shared.suppressions import (
    SuppressionChange,
    SuppressionSource,
    changes_by_keyword,
    latest_changes,
)

_log = structlog.get_logger()


_STORE_SECONDS = 15
"""The time limit for storing the attachments of an e-mail."""


@dataclass(frozen=True, slots=True)
class WebhookService:
    """Publishes messages, receipts, opt-outs and opt-ins.

    Its methods raise BusUnavailableError when JetStream does not acknowledge. An event may be stored
    nevertheless; publishing it again does no harm.

    Attributes:
        publisher: publishes the events.
        suppressions: the suppression list.
        own_keywords: further words by which people opt out and in.
        media_store: keeps the attachments of e-mails; without it, they are lost.
    """

    publisher: Publisher
    suppressions: SuppressionList
    default_region: str
    own_keywords: Words = field(default_factory=dict)
    media_store: MediaStore | None = None

    async def publish(
        self, content: WebhookContent, request: WebhookRequest, *, provider: str, trace: Mapping[str, str]
    ) -> None:
        """Publish the content of a webhook.

        Args:
            content: the parsed webhook.
            request: the webhook.
            provider: the provider's name.
            trace: headers of the trace that the webhook belongs to.
        """
        if content.invalid:
            REFUSED.labels(request.path, "invalid_event").inc(len(content.invalid))
            fields = sorted({fault.field for faults in content.invalid for fault in faults})
            _log.warning(
                "webhook_event_invalid", provider=provider, count=len(content.invalid), fields=fields[:20]
            )
        messages = await self._store_files(content)
        async with deadline():
            await asyncio.gather(
                *(self._receive(message, trace) for message in messages),
                *(self._report(receipt, request, trace) for receipt in content.receipts),
                # Changes of the same pair would be recorded one after another.
                *(self._record(change) for change in latest_changes(content.suppressions)),
            )

    async def _store_files(self, content: WebhookContent) -> list[IncomingMessage]:
        """Store the files of the messages, and return the messages.

        Raises:
            MediaStoreUnavailableError: they are not all stored. The provider has to try again.
        """
        if not content.files:
            return content.messages
        if self.media_store is None:
            _log.warning("media_lost", missing="MEDIA_STORE", count=len(content.files))
            return [_without_files(message) for message in content.messages]
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                for digest, file in content.files.items():
                    await self.media_store.put(digest, file)
        except TimeoutError as exc:
            raise MediaStoreUnavailableError("the media store did not answer in time") from exc
        return content.messages

    async def keep(self, request: WebhookRequest, error: WebhookError, channel: Channel) -> DeadLetterId:
        """Keep a webhook that could not be read as a dead letter, and return its id."""
        dead_letter = await asyncio.to_thread(dead_letter_of, request, error, channel)
        event = dead_letter_created(dead_letter, source="/gateway", time=request.received_at)
        subject = dead_letter_subject(dead_letter.direction, channel)
        async with deadline():
            await self.publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        DEAD_LETTERS.labels(dead_letter.direction, channel, dead_letter.reason).inc()
        REFUSED.labels(request.path, dead_letter.reason).inc()
        _log.error(
            "webhook_dead_lettered",
            route=request.path,
            dead_letter_id=str(dead_letter.id),
            reason=dead_letter.reason,
            detail=dead_letter.detail,
        )
        return dead_letter.id

    async def post_again(self, webhook: PostedWebhook, body: bytes) -> None:
        """Publish the content of a webhook that could not be read when it was received.

        Raises:
            WebhookError: the webhook, or a part of it, still cannot be read.
        """
        provider, declared = webhook_at(webhook.path.removeprefix(WEBHOOKS))
        request = posted(webhook, body, self.default_region)
        content = await parse_webhook(declared, request)
        await self.publish(content, request, provider=provider, trace={})
        if content.invalid_parts:
            raise content.error

    async def _receive(self, incoming: IncomingMessage, trace: Mapping[str, str]) -> None:
        message = incoming.message
        if incoming.keyword is None and message.channel.rules.has_keywords:
            keyword = keyword_of(message.body, self.own_keywords)
            incoming = incoming.model_copy(update={"keyword": keyword})
        structlog.contextvars.bind_contextvars(message_id=str(message.id))
        tracing.annotate(
            message_id=message.id, conversation_key=message.conversation_key, channel=message.channel
        )
        for change in changes_by_keyword(incoming):
            # YES is an ordinary answer unless there is an opt-out to revoke.
            only_if_changed = incoming.keyword is Keyword.YES
            await self.suppressions.record(change, only_if_changed=only_if_changed)
        event = message_received(incoming)
        subject = inbound_message_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.INBOUND, Outgoing(subject, event.id, event.encode(), trace))
        ACCEPTED.labels(message.channel, "webhook").inc()
        _log.info("message_received", type=message.type, provider=message.provider)

    async def _report(
        self, receipt: IncomingReceipt, request: WebhookRequest, trace: Mapping[str, str]
    ) -> None:
        event = receipt_received(receipt, time=request.received_at)
        subject = inbound_receipt_subject(receipt.channel, receipt.provider)
        await self.publisher.publish(Stream.INBOUND, Outgoing(subject, event.id, event.encode(), trace))
        ACCEPTED.labels(receipt.channel, "receipt").inc()
        RECEIPTS.labels(receipt.channel, receipt.status).inc()
        _log.info(
            "receipt_received",
            provider=receipt.provider,
            provider_message_id=receipt.provider_message_id,
            status=receipt.status,
        )

    async def _record(self, change: SuppressionChange) -> None:
        # A provider that refuses to send reports a state rather than an event.
        await self.suppressions.record(change, only_if_changed=change.source is SuppressionSource.PROVIDER)


def _without_files(incoming: IncomingMessage) -> IncomingMessage:
    """Return a message whose files are not kept."""
    lost = {"status": MediaStatus.FAILED, "reason": "no_media_store", "digest": None}
    files = [media.model_copy(update=lost) for media in incoming.message.files]
    return incoming.model_copy(update={"message": incoming.message.model_copy(update={"files": files})})
