"""The way to one provider, with what keeps it from being flooded: limits and a circuit breaker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

import structlog
from aiolimiter import AsyncLimiter
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from services.sender.attachments import Fetch
from services.sender.circuit_breaker import CircuitBreaker
from shared.providers.base import (
    CredentialsError,
    File,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.observability import metrics
from shared.events import Message

_log = structlog.get_logger()

ATTEMPT_TIMEOUT = 22.0
"""Seconds that an attempt may take with attachments and quick repetitions; the claim on it lasts longer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard a provider may be pressed: requests under way at once, and requests a second if limited."""

    concurrency: int
    rate: float | None = None


class Route:
    """Sends through `provider`, within `limits`, while its circuit breaker allows."""

    def __init__(self, provider: Provider, breaker: CircuitBreaker, limits: Limits, fetch: Fetch) -> None:
        self.provider = provider
        self._breaker = breaker
        self._is_refused = False
        self._fetch = fetch
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._time_limits: set[asyncio.Timeout] = set()
        rate = limits.rate
        # One message a second or less is let through singly, more in bursts of a second.
        self._limiter = AsyncLimiter(max(rate, 1), max(rate, 1) / rate) if rate else None
        metrics.SENT.labels(provider.name, "sent")  # is 0 from now on, where it would be missing
        self._show()

    @property
    def may_be_asked(self) -> bool:
        """Tell whether a message may be sent, or may at least try."""
        return not self._breaker.lets_nobody_through

    def blocked_until(self) -> datetime | None:
        """Tell until when nothing should be sent, or None if something may."""
        return self._breaker.blocked_until()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for one's turn, and hold it."""
        async with self._slots:
            if self._limiter:
                await self._limiter.acquire()
            yield

    async def send(self, message: Message) -> str:
        """Hand the message to the provider and return its id there.

        Raises:
            ProviderError: one of its kinds.
        """
        name = self.provider.name
        started: float | None = None
        try:
            async with self._time_limit():
                files = await self._files_of(message)
                started = perf_counter()
                provider_message_id = await self._send_translated(message, files)
        except TimeoutError as exc:
            error = _out_of_time(was_asked=started is not None)
            self._learn(error, was_asked=started is not None)
            raise error from exc
        except ProviderError as exc:
            self._learn(exc, was_asked=started is not None)
            raise
        finally:
            if started is not None:
                metrics.SEND_SECONDS.labels(name).observe(perf_counter() - started)
        self._answers()
        self._report("sent")
        return provider_message_id

    def finish_within(self, seconds: float) -> None:
        """Give the attempts under way no more time than this."""
        latest = asyncio.get_running_loop().time() + seconds
        for limit in self._time_limits:
            limit.reschedule(min(limit.when() or latest, latest))

    @asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[None]:
        async with asyncio.timeout(ATTEMPT_TIMEOUT) as limit:
            self._time_limits.add(limit)
            try:
                yield
            finally:
                self._time_limits.discard(limit)

    async def _files_of(self, message: Message) -> Sequence[File]:
        if not (self.provider.takes_files and message.attachments):
            return ()
        try:
            return await self._fetch(message.attachments)
        except (ProviderError, TimeoutError):
            raise
        except Exception as exc:
            raise TemporaryError("attachment_unexpected", repr(exc)) from exc

    async def _send_translated(self, message: Message, files: Sequence[File]) -> str:
        try:
            return await self._send_with_quick_retries(message, files)
        except (ProviderError, TimeoutError):
            raise
        except Exception as exc:
            # An adapter met what it does not know; whether the provider has the message nobody can tell.
            raise UnknownOutcomeError("unexpected", repr(exc)) from exc

    @retry(
        retry=retry_if_exception_type(NotReachedError),
        stop=stop_after_attempt(3),
        wait=wait_random(0.05, 0.25),
        reraise=True,
    )
    async def _send_with_quick_retries(self, message: Message, files: Sequence[File]) -> str:
        return await self.provider.send(message, files)

    def _learn(self, error: ProviderError, *, was_asked: bool) -> None:
        match error:
            case _ if not was_asked:
                pass  # an attachment is at fault, which tells nothing of the provider
            case RejectedError():
                self._answers()  # this one message is at fault
            case CredentialsError():
                self._breaker.open()
                self._is_refused = True
                _log.error("route_paused", provider=self.provider.name, code=error.code, detail=str(error))
            case _:
                self._breaker.failed()
        self._report(error.code)

    def _answers(self) -> None:
        self._breaker.succeeded()
        if self._is_refused:
            self._is_refused = False
            _log.info("route_resumed", provider=self.provider.name)

    def _report(self, outcome: str) -> None:
        metrics.SENT.labels(self.provider.name, outcome).inc()
        self._show()

    def _show(self) -> None:
        name = self.provider.name
        metrics.BREAKER_OPEN.labels(name).set(self._breaker.is_open)
        metrics.PROVIDER_PAUSED.labels(name).set(self._is_refused)


def _out_of_time(*, was_asked: bool) -> ProviderError:
    if was_asked:
        return UnknownOutcomeError("timeout", "no answer in time")
    return TemporaryError("attachment_timeout", "the attachments did not come in time")
