"""Sends messages through one provider, and holds back requests that it could not handle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from random import uniform
from time import perf_counter
from typing import Any

import structlog

from services.sender.attachment_limits import SMALL, AttachmentLimits
from services.sender.attachments import MAX_BYTES, Fetch
from services.sender.circuit_breaker import CircuitBreaker, Permission
from services.sender.deadline import Deadline
from services.sender.gate import LimitedError
from services.sender.limits import Admission, Limiter
from services.sender.pauses import Pauses
from shared.channels import Channel
from shared.downloads import TOO_LARGE
from shared.lifecycle.policy import MIN_PAUSE
from shared.message import DeliveryRequest, Message
from shared.observability import metrics
from shared.provider_states import ProviderCondition, ProviderState
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
"""Seconds that an attempt may take with quick retries."""

_QUICK_RETRIES = 2
_QUICK_RETRY_PAUSE = (0.05, 0.25)
"""The shortest and the longest pause before a request that did not reach the provider is repeated."""

_LONGEST_WAIT_WITH_FILES = 60.0
"""Seconds that a message whose files are in memory waits for its limits; others may wait longer."""

_MOMENT = 2.0
"""Seconds that a message may wait for its limits if it has moved between processes very often."""

_AFTER_A_MOMENT = 30.0
"""Seconds after which such a message is due again."""


class ProviderClient:
    """Sends messages through a provider.

    Args:
        provider: the provider.
        adapter: builds its requests and reads its responses.
        http_client: makes the requests.
        breaker: opens while the provider fails, rejects our credentials, or asks us to wait.
        limiter: limits the requests.
        pauses: shares the provider's requests to wait with all processes.
        fetch: fetches the attachments, if the provider accepts files.
        attachment_limits: limits the number of messages whose attachments are fetched at the same time.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        provider: Provider[Any],
        adapter: Adapter[Any],
        http_client: http.HttpClient,
        *,
        breaker: CircuitBreaker,
        limiter: Limiter,
        pauses: Pauses,
        fetch: Fetch,
        attachment_limits: AttachmentLimits | None = None,
    ) -> None:
        self.name = provider.name
        self.channel: Channel = provider.channel
        self._adapter = adapter
        self._http_client = http_client
        self._breaker = breaker
        self._limiter = limiter
        self._pauses = pauses
        self._fetch = fetch
        self._attachment_limits = attachment_limits or AttachmentLimits()
        self._is_paused = False
        self._attempts: set[Deadline] = set()
        self._finish_at = inf
        self._throttled_until = 0.0
        pauses.listen(self.name, self._observe_pause)
        metrics.SENT.labels(self.name, "sent")  # so that it is 0 rather than missing
        metrics.THROTTLED.labels(self.name, "provider").set_function(
            lambda: breaker.clock() < self._throttled_until
        )
        metrics.THROTTLED.labels(self.name, "sender").set_function(lambda: limiter.paused_senders)
        metrics.BREAKER_OPEN.labels(self.name).set_function(lambda: breaker.is_open)
        metrics.PROVIDER_PAUSED.labels(self.name).set_function(lambda: self._is_paused)
        self._send_seconds = metrics.SEND_SECONDS.labels(self.name)

    @property
    def honours_idempotency_keys(self) -> bool:
        return self._adapter.honours_idempotency_keys

    def can_send(self, message: Message) -> bool:
        """Return whether the provider can send such a message at all."""
        return self._adapter.can_send(message)

    @property
    def is_available(self) -> bool:
        """Whether a message may be sent now, if only as a probe."""
        return self._breaker.can_acquire

    @property
    def is_healthy(self) -> bool:
        """Whether the circuit breaker is closed."""
        return not self._breaker.is_open

    @property
    def retry_in(self) -> timedelta:
        """The time until a message may be sent."""
        return timedelta(seconds=self._breaker.seconds_left)

    def state(self, now: datetime) -> ProviderState:
        """Return the state of the provider at this time, for the gateway to show."""
        is_throttled = self._breaker.clock() < self._throttled_until
        condition = ProviderCondition.HEALTHY
        if not self.is_healthy:
            is_asked = self._is_paused or is_throttled
            condition = ProviderCondition.PAUSED if is_asked else ProviderCondition.OPEN
        # To the second, so that the time stays the same from one report to the next.
        until = (now + self.retry_in).replace(microsecond=0)
        return ProviderState(
            name=self.name,
            channel=self.channel,
            state=condition,
            until=None if self.is_healthy else until,
            in_progress=self._limiter.in_progress,
            concurrency=self._limiter.concurrency,
            rate=self._limiter.rate,
            paused_senders=self._limiter.paused_senders,
        )

    def try_acquire(self) -> Permission | None:
        """Acquire the permission to send a message, or return None while the circuit breaker is open."""
        return self._breaker.try_acquire()

    @asynccontextmanager
    async def slot(self, request: DeliveryRequest, *, may_wait: bool = True) -> AsyncIterator["Slot"]:
        """Fetch a message's attachments, wait until its limits admit it, and hold its places in the context.

        Args:
            request: the message and its step.
            may_wait: whether it may wait for longer than a moment.

        Raises:
            LimitedError: the wait would be longer than a message may stay in the process.
        """
        await self._pauses.until_known()
        # The files are in memory until the message has been sent, so their number is limited until then.
        async with AsyncExitStack() as memory:
            files, admission = await self._admit(request, memory, may_wait=may_wait)
            slot = Slot(self, request.message, files, admission)
            try:
                yield slot
            finally:
                slot.release()
                self._limiter.leave(admission)

    async def _admit(
        self, request: DeliveryRequest, memory: AsyncExitStack, *, may_wait: bool
    ) -> tuple[Sequence[File] | ProviderError | None, Admission]:
        try:
            async with asyncio.timeout(None if may_wait else _MOMENT):
                files, admission = await self._enter(request, memory)
                while files is None and self.is_available:
                    # It has become available in the meantime, and the attachments can be fetched now.
                    self._limiter.leave(admission)
                    await memory.aclose()
                    files, admission = await self._enter(request, memory)
                return files, admission
        except TimeoutError:
            metrics.DEFERRALS.labels(self.name, "limited").inc()
            raise LimitedError(_AFTER_A_MOMENT) from None
        except LimitedError:
            metrics.DEFERRALS.labels(self.name, "limited").inc()
            raise

    async def _enter(
        self, request: DeliveryRequest, memory: AsyncExitStack
    ) -> tuple[Sequence[File] | ProviderError | None, Admission]:
        if not (self._adapter.takes_files and request.message.attachments):
            return (), await self._limiter.enter(request)
        files = await self._fetch_files(request, memory)
        return files, await self._limiter.enter(request, longest_wait=_LONGEST_WAIT_WITH_FILES)

    async def send(
        self,
        message: Message,
        files: Sequence[File],
        permissions: "Permissions",
        may_repeat: Callable[[], bool],
    ) -> str:
        """Send a message and return the provider's message id; see `Slot.send`."""
        asked_at = perf_counter()
        latest = asyncio.get_running_loop().time() + ATTEMPT_TIMEOUT
        attempt = Deadline(min(latest, self._finish_at))
        self._attempts.add(attempt)
        try:
            async with attempt:
                provider_message_id = await self._request(message, files, may_repeat)
        except TimeoutError as exc:
            error = UnknownOutcomeError("timeout", "no response in time")
            self._record_error(error, message, permissions)
            raise error from exc
        except ProviderError as exc:
            self._record_error(exc, message, permissions)
            raise
        finally:
            self._attempts.discard(attempt)
            self._send_seconds.observe(perf_counter() - asked_at)
        self._record_answer(permissions)
        self.count_attempt("sent")
        return provider_message_id

    def finish_within(self, seconds: float) -> None:
        """Limit the attempts in progress, and those that begin later, to this time."""
        self._finish_at = asyncio.get_running_loop().time() + seconds
        for attempt in self._attempts:
            attempt.reschedule(min(attempt.when, self._finish_at))

    async def _fetch_files(
        self, request: DeliveryRequest, memory: AsyncExitStack
    ) -> Sequence[File] | ProviderError | None:
        urls = request.message.attachments
        await memory.enter_async_context(self._attachment_limits.place(request.caller, urls))
        files = await self._try_to_fetch(urls, SMALL)
        if isinstance(files, ProviderError) and files.code == TOO_LARGE:
            await memory.aclose()  # other messages do not have to wait for that place
            await memory.enter_async_context(self._attachment_limits.large_place(request.caller, urls))
            files = await self._try_to_fetch(urls, MAX_BYTES)
        if files is None or isinstance(files, ProviderError):
            return files
        # Providers refuse a whole message because of an empty file.
        kept = [file for file in files if file.content]
        if len(kept) < len(files):
            _log.warning("empty_attachment_left_out", message_id=str(request.message.id))
        return kept

    async def _try_to_fetch(
        self, urls: Sequence[str], max_bytes: int
    ) -> Sequence[File] | ProviderError | None:
        if not self.is_available:
            return None
        try:
            return await self._fetch(urls, max_bytes)
        except ProviderError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - it becomes the outcome of the attempt
            return TemporaryError("attachment_unexpected", repr(exc))

    async def _request(self, message: Message, files: Sequence[File], may_repeat: Callable[[], bool]) -> str:
        try:
            return await self._request_with_quick_retries(message, files, may_repeat)
        except (ProviderError, TimeoutError):
            raise
        except Exception as exc:
            # A defect of the adapter, for example: nobody knows whether the provider has the message.
            raise UnknownOutcomeError("unexpected", repr(exc)) from exc

    async def _request_with_quick_retries(
        self, message: Message, files: Sequence[File], may_repeat: Callable[[], bool]
    ) -> str:
        for _ in range(_QUICK_RETRIES):
            try:
                return await http.send(self._http_client, self._adapter, message, files)
            except NotReachedError:
                await asyncio.sleep(uniform(*_QUICK_RETRY_PAUSE))
                if not may_repeat():
                    raise
        return await http.send(self._http_client, self._adapter, message, files)

    def _record_error(self, error: ProviderError, message: Message, permissions: "Permissions") -> None:
        if error.throttled or error.retry_after is not None:
            self._throttle(error, message)
        match error:
            case RejectedError():
                self._record_answer(permissions)  # the provider works; it rejects this one message
            case CredentialsError():
                self._pause(error)
            case _ if error.throttled:
                permissions.provider.record_success()  # the provider works; has no effect while it is paused
            case _:
                permissions.provider.record_failure()
        self.count_attempt(error.code)

    def _record_answer(self, permissions: "Permissions") -> None:
        permissions.provider.record_success()
        if permissions.sender:
            permissions.sender.record_success()
        if self._is_paused and not self._breaker.is_open:
            self._is_paused = False
            _log.info("provider_resumed", provider=self.name)

    def _pause(self, error: CredentialsError) -> None:
        self._breaker.open()
        self._is_paused = True
        _log.error("provider_paused", provider=self.name, code=error.code, detail=str(error))

    def _throttle(self, error: ProviderError, message: Message) -> None:
        """Pause the provider, or only this sending address, for as long as the provider requests."""
        seconds = max(error.retry_after or MIN_PAUSE, MIN_PAUSE).total_seconds()
        sender = message.from_key.casefold() if error.sender_only else None
        _log.warning(
            "provider_throttled", provider=self.name, sender=sender, seconds=seconds, code=error.code
        )
        self._pauses.record(self.name, sender, seconds)

    def _observe_pause(self, sender: str | None, seconds: float) -> None:
        if seconds <= 0:
            return
        if sender is not None:
            self._limiter.pause(sender, seconds)
            return
        until = self._breaker.clock() + seconds
        self._throttled_until = max(until, self._throttled_until)
        self._breaker.open(until)

    def count_attempt(self, outcome: str) -> None:
        metrics.SENT.labels(self.name, outcome).inc()


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permissions for a request to send a message.

    Attributes:
        provider: the permission of the provider's circuit breaker.
        sender: the permission of the sending address, if the provider has paused that address.
    """

    provider: Permission
    sender: Permission | None


class Slot:
    """The place of a message at a provider.

    Args:
        client: sends the message.
        message: the message.
        files: its attachments, if the provider accepts files, or the reason why they are missing. None if
            they were not fetched because the provider is not available.
        admission: its place, and the slots that it has taken of its limits.
    """

    def __init__(
        self,
        client: ProviderClient,
        message: Message,
        files: Sequence[File] | ProviderError | None,
        admission: Admission,
    ) -> None:
        self._client = client
        self._message = message
        self._files = files
        self._admission = admission
        self._permission: Permission | None = None

    @property
    def provider(self) -> str:
        return self._client.name

    @property
    def retry_in(self) -> timedelta:
        """The time until a request may be made to the provider."""
        return self._client.retry_in

    def try_acquire(self) -> bool:
        """Acquire the permission to send the message, unless the circuit breaker is open.

        It is given back when the message leaves its place, unless the attempt had an outcome.
        """
        if self._files is not None:
            self._permission = self._client.try_acquire()
        return self._permission is not None

    async def until_due(self) -> None:
        """Wait for other slots of the message's limits if it could not use those that it has in time."""
        await self._admission.until_due()

    async def send(self, *, may_repeat: Callable[[], bool] = lambda: True) -> str:
        """Send the message and return the provider's message id, after `try_acquire` has succeeded.

        Args:
            may_repeat: returns whether a request that did not reach the provider may be made again at once.

        Raises:
            ProviderError: the provider did not accept the message, it is not known whether it did, or the
                attachments could not be fetched.
        """
        if self._permission is None or self._files is None:
            raise RuntimeError("there is no permission to send")
        if isinstance(self._files, ProviderError):
            self._client.count_attempt(self._files.code)
            raise self._files
        permissions = Permissions(self._permission, self._admission.permission)
        return await self._client.send(self._message, self._files, permissions, may_repeat)

    def release(self) -> None:
        """Give the permission back."""
        if self._permission:
            self._permission.release()
