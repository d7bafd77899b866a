"""What happens to one message: look, wait for a turn, ask for consent, claim, send, record, announce.

Every step is recorded in the ledger before it is announced to the streams, and a redelivery announces again
what the ledger has. A process may therefore die between any two lines of this module: the message is neither
lost nor, where its provider honours idempotency keys, sent twice.

A message may take another route at each step, as long as it is certain that nobody has it yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import structlog
from tenacity import retry, retry_if_exception_type, wait_random

from services.sender.event_publisher import EventPublisher
from services.sender.telemetry import note
from shared.providers.base import CredentialsError, ProviderError, RejectedError, UnknownOutcomeError
from services.sender.retry import DEFAULT_DELAYS, next_attempt_at, next_look_at
from services.sender.provider_client import ATTEMPT_TIMEOUT, Route
from services.sender.provider_selection import Routes
from services.sender.settings import OnAmbiguous
from shared.addresses import key_of
from shared.bus.key_value import ConflictError
from shared.bus.client import REQUEST_TIMEOUT
from shared.bus.consumer import Done, HandBack, Outcome
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.errors import BusUnavailableError
from shared.events import (
    AttemptError,
    SuppressionChange,
    SuppressionSource,
    SuppressionState,
    DeliveryRequest,
    Message,
    Origin,
)
from shared.ledger import Entry, Ledger, Record, State, step_of

_log = structlog.get_logger()

CLAIM_LEASE = timedelta(seconds=ATTEMPT_TIMEOUT + REQUEST_TIMEOUT + 2)
"""A claim without a result that is older than this belongs to a process that died: writing it down and the
attempt itself together take less."""

_SOON = timedelta(seconds=1)

_OPTED_OUT = "opted_out"
"""The code of the error when a recipient has opted out, as we know or as the provider says."""


class _StoppingError(Exception):
    """The process is about to end: others have more time for what has not begun."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Policy:
    """What follows from a failure.

    Attributes:
        delays: between the attempts.
        on_ambiguous: for providers that do not honour idempotency keys.
        grace: after NATS was away, how long the claims of others are left alone: who made them may be
            about to write down what came of them.
    """

    delays: tuple[timedelta, ...] = DEFAULT_DELAYS
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    grace: timedelta = timedelta(seconds=10)
    clock: Callable[[], datetime] = _now
    random: Random = field(default_factory=Random)


class Deliverer:
    """Delivers requests, each by the first of its routes that is open."""

    def __init__(
        self, ledger: Ledger, suppressions: SuppressionList, events: EventPublisher, routes: Routes, policy: Policy
    ) -> None:
        self._ledger = ledger
        self._suppressions = suppressions
        self._events = events
        self._routes = routes
        self._policy = policy
        self._is_stopping = False

    def finish_within(self, seconds: float) -> None:
        """Give the attempts under way no more time, and begin no other.

        One that has no answer by then is recorded as such.
        """
        self._is_stopping = True
        self._routes.finish_within(seconds)

    def may_send(self, channel: Channel) -> bool:
        """Tell whether a message of the channel could be sent now, or try at least."""
        return self._routes.any_may_be_asked(channel)

    async def deliver(self, request: DeliveryRequest, origin: Origin) -> Outcome:
        """Do what is next for the message, if anything is.

        Raises:
            BusUnavailableError: NATS does not answer; the request should come again.
        """
        try:
            return await self._take_step(request, origin)
        except ConflictError:
            return HandBack(_SOON)  # another process took the step; by then the ledger tells what came of it
        except _StoppingError:
            return HandBack()

    async def _take_step(self, request: DeliveryRequest, origin: Origin) -> Outcome:
        record = await self._ledger.look_up(request.message.id)
        if record is not None:
            request = record.entry.catch_up(request)
            if outcome := await self._settled(request, record, origin):
                return outcome
        if self._is_early(request):
            entry = Entry.of(request, State.DEFERRED, self._policy.clock(), due=request.message.send_at)
        else:
            entry, record = await self._try_routes(request, record)
        await self._record(request, entry, after=record)
        note(request, entry)
        await self._announce(request, entry, origin)
        return Done()

    async def _settled(self, request: DeliveryRequest, record: Record, origin: Origin) -> Outcome | None:
        """Tell what to do with a request that the ledger has something about; None is to send it."""
        entry = record.entry
        step = step_of(request)
        is_later_generation = request.generation > entry.step[0]
        if entry.state is State.CANCELED or (entry.state is State.SENT and is_later_generation):
            # Who canceled it may have died before; and a generation that begins has to have an end.
            await self._events.publish(request, entry, origin)
            return Done()
        if step > entry.step:
            return Done() if entry.state.ends_generation and not is_later_generation else None
        if step < entry.step:
            return Done()
        if entry.state is not State.CLAIMED:
            await self._announce(request, entry, origin)
            return Done()
        age = self._policy.clock() - entry.at
        wait = max(CLAIM_LEASE - age, self._policy.grace - self._ledger.connected_for)
        return HandBack(wait) if wait > timedelta(0) else None

    def _is_early(self, request: DeliveryRequest) -> bool:
        """Tell whether the message has to be put off until its time; when that has come, NATS decides."""
        send_at = request.message.send_at
        is_first_look = (request.attempt, request.deferral_count) == (1, 0)
        return is_first_look and send_at is not None and self._policy.clock() < send_at

    async def _try_routes(
        self, request: DeliveryRequest, record: Record | None
    ) -> tuple[Entry, Record | None]:
        """Try one route after another while they put the message off, and tell what came of it."""
        in_doubt_at = record.entry.may_be_at if record else None
        if in_doubt_at and record and not self._may_resend(request, record, in_doubt_at):
            return self._failed_without_knowing(request, in_doubt_at), record
        put_off = []
        for route in self._open_to(request, in_doubt_at):
            async with route.slot():
                if self._is_stopping:
                    raise _StoppingError
                claim = self._claim(request, route, in_doubt_at)
                entry = await self._without_sending(request, route, claim)
                if entry is None:
                    record = await self._ledger.write(request.message.id, claim, after=record)
                    entry = await self._send(request, route, claim)
            if entry.state is not State.DEFERRED:
                return entry, record
            put_off.append(entry)
        return min(put_off, key=lambda entry: entry.due or entry.at), record

    def _open_to(self, request: DeliveryRequest, in_doubt_at: str | None) -> Sequence[Route]:
        """Return the routes a message may take; of one in doubt, the one where a repetition does no harm."""
        routes = self._routes.of(request.message)
        asked = self._routes.to(in_doubt_at) if in_doubt_at else None
        if asked is None:
            return routes
        if asked.provider.honours_idempotency_keys:
            return [asked]
        return [asked, *(route for route in routes if route is not asked)]

    def _may_resend(self, request: DeliveryRequest, record: Record, provider: str) -> bool:
        """Tell whether to send again what the provider may have; a replay is somebody's wish."""
        is_replay = request.generation > record.entry.step[0]
        return is_replay or self._is_repeatable(provider)

    def _is_repeatable(self, provider: str) -> bool:
        route = self._routes.to(provider)
        honours = route is not None and route.provider.honours_idempotency_keys
        return honours or self._policy.on_ambiguous is OnAmbiguous.RESEND

    async def _without_sending(self, request: DeliveryRequest, route: Route, claim: Entry) -> Entry | None:
        """Tell what becomes of a request that is not to be sent now; None is to send it."""
        now = self._policy.clock()
        if now >= request.expires_at:
            return claim.becomes(State.EXPIRED, now, provider=None)
        if suppression := await self._suppressions.suppression_of(request.message):
            return self._suppressed(request, claim, suppression)
        if blocked_until := route.blocked_until():
            return self._deferred(request, claim, blocked_until)
        return None

    def _suppressed(self, request: DeliveryRequest, claim: Entry, suppression: SuppressionChange) -> Entry:
        now = self._policy.clock()
        detail = f"the recipient opted out on {suppression.occurred_at.isoformat()}: {suppression.source}"
        error = AttemptError(attempt=request.attempt, code=_OPTED_OUT, detail=detail, at=now)
        return claim.becomes(State.FAILED, now, provider=None, error=error)

    async def _send(self, request: DeliveryRequest, route: Route, claim: Entry) -> Entry:
        try:
            provider_message_id = await route.send(request.message)
        except ProviderError as exc:
            return self._after_failure(request, route, claim, exc)
        now = self._policy.clock()
        return claim.becomes(State.SENT, now, provider_message_id=provider_message_id)

    def _after_failure(
        self, request: DeliveryRequest, route: Route, claim: Entry, failure: ProviderError
    ) -> Entry:
        now = self._policy.clock()
        error = AttemptError(
            attempt=request.attempt,
            code=failure.code,
            detail=str(failure),
            provider=route.provider.name,
            status_code=failure.status_code,
            at=now,
        )
        _log.warning("attempt_failed", message_id=str(request.message.id), **error.model_dump(mode="json"))
        if isinstance(failure, CredentialsError):
            return self._deferred(request, claim, now, error=error)
        if isinstance(failure, RejectedError):
            return claim.becomes(State.FAILED, now, error=error)
        if isinstance(failure, UnknownOutcomeError):
            claim = claim.model_copy(update={"in_doubt_at": claim.provider})
            if not self._is_repeatable(route.provider.name):
                return claim.becomes(State.FAILED, now, error=error)
        due = next_attempt_at(
            request.attempt,
            delays=self._policy.delays,
            retry_after=failure.retry_after,
            now=now,
            expires_at=request.expires_at,
            random=self._policy.random,
        )
        if due is None:
            return claim.becomes(State.FAILED, now, error=error)
        return claim.becomes(State.RETRYING, now, error=error, due=due)

    def _deferred(
        self,
        request: DeliveryRequest,
        claim: Entry,
        not_before: datetime,
        error: AttemptError | None = None,
    ) -> Entry:
        now = self._policy.clock()
        due = next_look_at(
            request.deferral_count,
            not_before=not_before,
            now=now,
            random=self._policy.random,
        )
        return claim.becomes(State.DEFERRED, now, error=error, due=min(due, request.expires_at))

    def _failed_without_knowing(self, request: DeliveryRequest, provider: str) -> Entry:
        now = self._policy.clock()
        error = AttemptError(
            attempt=request.attempt,
            code="ambiguous",
            detail="the provider was asked and nobody knows what it did; it may have the message",
            provider=provider,
            at=now,
        )
        return Entry.of(request, State.FAILED, now, provider=provider, error=error, in_doubt_at=provider)

    def _claim(self, request: DeliveryRequest, route: Route, in_doubt_at: str | None) -> Entry:
        name = route.provider.name
        return Entry.of(request, State.CLAIMED, self._policy.clock(), provider=name, in_doubt_at=in_doubt_at)

    async def _announce(self, request: DeliveryRequest, entry: Entry, origin: Origin) -> None:
        """Tell what the ledger has recorded, and before that what a provider said about the recipient."""
        error = entry.error
        if error and error.code == _OPTED_OUT and error.provider:
            change = _opt_out_at(error.provider, request.message, error.at)
            await self._suppressions.record(change, unless_so=True)
        await self._events.publish(request, entry, origin)

    @retry(retry=retry_if_exception_type(BusUnavailableError), wait=wait_random(0.1, 0.3))
    async def _record(self, request: DeliveryRequest, entry: Entry, *, after: Record | None) -> None:
        """Write down what happened, however long NATS is away: nobody else knows."""
        message_id = request.message.id
        try:
            await self._ledger.write(message_id, entry, after=after)
        except ConflictError:
            # Our own write may have gone through without its acknowledgement; or another process has the
            # claim by now. Only that the provider has the message is more than what that one may find out.
            found = await self._ledger.look_up(message_id)
            if found and found.entry == entry:
                return
            is_claimed = (
                found and found.entry.step == entry.step and found.entry.state is State.CLAIMED
            )
            if not (is_claimed and entry.state is State.SENT):
                raise
            await self._ledger.write(message_id, entry, after=found)


def _opt_out_at(provider: str, message: Message, at: datetime) -> SuppressionChange:
    """Make the change that a provider told us of, which knows of it for longer than we do."""
    channel = message.channel
    return SuppressionChange(
        channel=channel,
        ours=key_of(message.from_, channel),
        theirs=key_of(message.to, channel),
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.PROVIDER,
        detail=provider,
        occurred_at=at,
    )
