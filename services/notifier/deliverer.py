"""Makes one attempt to deliver an event to an endpoint, records it, and schedules the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from random import random as random_number
from typing import TypeVar

import structlog

from services.notifier.bodies import Bodies
from services.notifier.disabling import Disabling
from services.notifier.endpoint_client import Answer, DeliveryError, EndpointClient
from services.notifier.retries import next_delay
from services.notifier.signing import signed_headers
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, webhook_attempt_subject
from shared.bus.webhook_deliveries import schedule_delivery
from shared.endpoint_secrets import SecretCipher, UndecryptableSecretError
from shared.errors import UnavailableError
from shared.events import webhook_attempted
from shared.ids import new_event_id
from shared.observability.metrics import WEBHOOK_ATTEMPTS, WEBHOOK_GIVEN_UP, WEBHOOK_SECONDS
from shared.webhook_attempts import WebhookAttempt
from shared.webhook_endpoints import Delivery, DisabledReason, WebhookEndpoint

_log = structlog.get_logger()

_SUCCESS = range(200, 300)
_STATUSES = range(100, 600)
_GONE = 410
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 5.0

T = TypeVar("T")


class Deliverer:
    """Delivers events.

    Args:
        client: makes the requests.
        bodies: renders the events.
        cipher: decrypts the secrets of the endpoints.
        publisher: records the attempts and schedules the next ones.
        disabling: disables endpoints.
        delays: the time after each attempt but the last.
        clock: returns the time.
        random: returns a number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - each is a part of an attempt
        self,
        client: EndpointClient,
        bodies: Bodies,
        cipher: SecretCipher,
        publisher: Publisher,
        disabling: Disabling,
        delays: Sequence[timedelta],
        clock: Callable[[], datetime],
        *,
        random: Callable[[], float] = random_number,
    ) -> None:
        self._client = client
        self._bodies = bodies
        self._cipher = cipher
        self._publisher = publisher
        self._disabling = disabling
        self._delays = delays
        self.clock = clock
        self._random = random
        self._warned_at = -_LAST_PAUSE

    async def deliver(self, endpoint: WebhookEndpoint, delivery: Delivery) -> None:
        """Make an attempt; return once it is recorded, and the next one is scheduled if it has failed."""
        body = await self._until_available(lambda: self._bodies.of(delivery))
        if body is None:
            _log.warning("webhook_without_object", event_id=str(delivery.notification.id))
            return
        started_at = self.clock()
        result = await self._request(endpoint, delivery, body, started_at)
        duration = self.clock() - started_at
        is_gone = isinstance(result, Answer) and result.status == _GONE
        succeeded = isinstance(result, Answer) and result.status in _SUCCESS
        next_at = None if succeeded or is_gone else self._next(delivery, result)
        attempt = _record(endpoint, delivery, result, started_at, duration, next_at)
        _count(attempt)
        if next_at is not None:
            following = delivery.model_copy(update={"attempt": delivery.attempt + 1})
            await self._until_available(
                lambda: schedule_delivery(self._publisher, endpoint, following, next_at)
            )
        await self._until_available(lambda: self._publish(attempt))
        if is_gone:
            await self._until_available(lambda: self._disabling.disable(endpoint, DisabledReason.GONE))
        elif not succeeded:
            await self._disabling.consider(endpoint)

    async def _request(
        self, endpoint: WebhookEndpoint, delivery: Delivery, body: bytes, now: datetime
    ) -> Answer | DeliveryError:
        try:
            secrets = [self._cipher.decrypt(secret.ciphertext) for secret in endpoint.secrets_at(now)]
            headers = signed_headers(delivery.notification.id, body, secrets, now)
            return await self._client.post(endpoint.url, headers, body)
        except DeliveryError as exc:
            return exc
        except UndecryptableSecretError as exc:
            _log.error("webhook_secret_unreadable", endpoint_id=str(endpoint.id), reason=str(exc))
            return DeliveryError("not_signed", "the service cannot decrypt the secret of the endpoint")

    def _next(self, delivery: Delivery, result: Answer | DeliveryError) -> datetime | None:
        retry_after = result.retry_after if isinstance(result, Answer) else None
        delay = next_delay(delivery.attempt, self._delays, retry_after=retry_after, random=self._random)
        return None if delay is None else self.clock() + delay

    async def _until_available(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation, after increasing pauses, until its dependencies are available."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await operation()
            except UnavailableError as exc:
                self._warn(exc)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    def _warn(self, error: UnavailableError) -> None:
        """Log that deliveries have to wait, but not for each delivery."""
        now = asyncio.get_running_loop().time()
        if now >= self._warned_at + _LAST_PAUSE:
            self._warned_at = now
            _log.warning("webhooks_wait", error=str(error))

    async def _publish(self, attempt: WebhookAttempt) -> None:
        event = webhook_attempted(attempt)
        subject = webhook_attempt_subject(attempt.endpoint_id)
        await self._publisher.publish(Stream.WEBHOOK_ATTEMPTS, Outgoing(subject, event.id, event.encode()))


def _record(
    endpoint: WebhookEndpoint,
    delivery: Delivery,
    result: Answer | DeliveryError,
    started_at: datetime,
    duration: timedelta,
    next_at: datetime | None,
) -> WebhookAttempt:
    answer = result if isinstance(result, Answer) else None
    succeeded = answer is not None and answer.status in _SUCCESS
    return WebhookAttempt(
        id=new_event_id(),
        endpoint_id=endpoint.id,
        event_id=delivery.notification.id,
        event_type=delivery.notification.type,
        sequence=delivery.sequence,
        attempt=delivery.attempt,
        trigger=delivery.trigger,
        started_at=started_at,
        duration_ms=round(duration.total_seconds() * 1_000),
        succeeded=succeeded,
        status_code=answer.status if answer else None,
        error=None if succeeded else f"http_{answer.status}" if answer else _code(result),
        response=answer.excerpt if answer else str(result),
        next_attempt_at=next_at,
    )


def _code(result: Answer | DeliveryError) -> str:
    return result.code if isinstance(result, DeliveryError) else ""


def _count(attempt: WebhookAttempt) -> None:
    status = attempt.status_code
    # A server may respond with any number, and must not be able to invent labels.
    of_status = f"{status // 100}xx" if status in _STATUSES and status else "other"
    WEBHOOK_ATTEMPTS.labels(of_status if status is not None else attempt.error).inc()
    WEBHOOK_SECONDS.observe(attempt.duration_ms / 1_000)
    if not attempt.succeeded and attempt.next_attempt_at is None:
        WEBHOOK_GIVEN_UP.inc()
    _log.info(
        "webhook_attempted",
        endpoint_id=str(attempt.endpoint_id),
        event_id=str(attempt.event_id),
        event_type=attempt.event_type,
        attempt=attempt.attempt,
        status_code=status,
        error=attempt.error,
    )
