"""Sends messages through one provider, and holds back requests that it could not handle."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from time import perf_counter
from typing import Any

import structlog
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from services.sender.attachments import Fetch
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.limits import Limiter
from shared.channels import Channel
from shared.message import Message
from shared.observability import metrics
from shared.providers import http
from shared.providers.base import (
    Adapter,
    CredentialsError,
    File,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)

_log = structlog.get_logger()

ATTEMPT_TIMEOUT = 22.0
"""Seconds that an attempt may take with attachments and quick retries; the claim on it lasts longer."""


class ProviderClient:
    """Sends messages through a provider.

    Args:
        provider: the provider.
        adapter: builds its requests and reads its responses.
        http_client: makes the requests.
        breaker: opens while the provider fails or rejects our credentials.
        limiter: limits the requests.
        fetch: fetches the attachments, if the provider accepts files.
    """

    def __init__(
        self,
        provider: Provider[Any],
        adapter: Adapter[Any],
        http_client: http.HttpClient,
        *,
        breaker: CircuitBreaker,
        limiter: Limiter,
        fetch: Fetch,
    ) -> None:
        self.name = provider.name
        self.channel: Channel = provider.channel
        self._adapter = adapter
        self._http_client = http_client
        self._breaker = breaker
        self._limiter = limiter
        self._fetch = fetch
        self._is_paused = False
        self._attempts: set[asyncio.Timeout] = set()
        metrics.SENT.labels(self.name, "sent")  # so that it is 0 rather than missing
        self._show_state()

    @property
    def honours_idempotency_keys(self) -> bool:
        return self._adapter.honours_idempotency_keys

    @property
    def is_available(self) -> bool:
        """Whether a message may be sent now, if only as a probe."""
        return self._breaker.can_acquire

    @property
    def is_healthy(self) -> bool:
        """Whether the circuit breaker is closed."""
        return not self._breaker.is_open

    @property
    def retry_at(self) -> datetime:
        """The earliest time at which a message may be sent."""
        return self._breaker.retry_at

    def try_acquire(self) -> bool:
        """Acquire the permission to send a message, unless the circuit breaker is open."""
        return self._breaker.try_acquire()

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Wait until the limits admit a request, and hold its place until the context exits."""
        return self._limiter.slot()

    async def send(self, message: Message) -> str:
        """Send a message and return the provider's message id.

        Raises:
            ProviderError: the provider did not accept the message, or it is not known whether it did.
        """
        asked_at: float | None = None
        try:
            async with self._attempt_deadline():
                files = await self._fetch_files(message)
                asked_at = perf_counter()
                provider_message_id = await self._request(message, files)
        except TimeoutError as exc:
            error = _timeout_error(was_asked=asked_at is not None)
            self._record_error(error, was_asked=asked_at is not None)
            raise error from exc
        except ProviderError as exc:
            self._record_error(exc, was_asked=asked_at is not None)
            raise
        finally:
            if asked_at is not None:
                metrics.SEND_SECONDS.labels(self.name).observe(perf_counter() - asked_at)
        self._record_answer()
        self._count_attempt("sent")
        return provider_message_id

    def finish_within(self, seconds: float) -> None:
        """Limit the attempts in progress to this time."""
        latest = asyncio.get_running_loop().time() + seconds
        for attempt in self._attempts:
            attempt.reschedule(min(attempt.when() or latest, latest))

    @asynccontextmanager
    async def _attempt_deadline(self) -> AsyncIterator[None]:
        async with asyncio.timeout(ATTEMPT_TIMEOUT) as attempt:
            self._attempts.add(attempt)
            try:
                yield
            finally:
                self._attempts.discard(attempt)

    async def _fetch_files(self, message: Message) -> Sequence[File]:
        if not (self._adapter.takes_files and message.attachments):
            return ()
        try:
            return await self._fetch(message.attachments)
        except (ProviderError, TimeoutError):
            raise
        except Exception as exc:
            raise TemporaryError("attachment_unexpected", repr(exc)) from exc

    async def _request(self, message: Message, files: Sequence[File]) -> str:
        try:
            return await self._request_with_quick_retries(message, files)
        except (ProviderError, TimeoutError):
            raise
        except Exception as exc:
            # A defect of the adapter, for example: nobody knows whether the provider has the message.
            raise UnknownOutcomeError("unexpected", repr(exc)) from exc

    @retry(
        retry=retry_if_exception_type(NotReachedError),
        stop=stop_after_attempt(3),
        wait=wait_random(0.05, 0.25),
        reraise=True,
    )
    async def _request_with_quick_retries(self, message: Message, files: Sequence[File]) -> str:
        return await http.send(self._http_client, self._adapter, message, files)

    def _record_error(self, error: ProviderError, *, was_asked: bool) -> None:
        if was_asked:  # otherwise an attachment failed, which says nothing about the provider
            match error:
                case RejectedError():
                    self._record_answer()  # the provider works; it rejects this one message
                case CredentialsError():
                    self._pause(error)
                case _:
                    self._breaker.record_failure()
        self._count_attempt(error.code)

    def _record_answer(self) -> None:
        self._breaker.record_success()
        if self._is_paused:
            self._is_paused = False
            _log.info("provider_resumed", provider=self.name)

    def _pause(self, error: CredentialsError) -> None:
        self._breaker.open()
        self._is_paused = True
        _log.error("provider_paused", provider=self.name, code=error.code, detail=str(error))

    def _count_attempt(self, outcome: str) -> None:
        metrics.SENT.labels(self.name, outcome).inc()
        self._show_state()

    def _show_state(self) -> None:
        metrics.BREAKER_OPEN.labels(self.name).set(self._breaker.is_open)
        metrics.PROVIDER_PAUSED.labels(self.name).set(self._is_paused)


def _timeout_error(*, was_asked: bool) -> ProviderError:
    if was_asked:
        return UnknownOutcomeError("timeout", "no answer in time")
    return TemporaryError("attachment_timeout", "the attachments were not fetched in time")
