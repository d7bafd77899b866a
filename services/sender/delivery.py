"""What happens to one message: look, wait for a turn, claim, send, record, announce.

Every step is recorded in the ledger before it is announced to the streams, and a redelivery announces again
what the ledger has. A process may therefore die between any two lines of this module: the message is neither
lost nor, where its provider honours idempotency keys, sent twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import structlog
from tenacity import retry, retry_if_exception_type, wait_random_exponential

from services.sender.announcer import Announcer
from services.sender.notes import note
from services.sender.providers.base import CredentialsError, ProviderError, RejectedError, UnknownOutcomeError
from services.sender.retry import DEFAULT_DELAYS, next_attempt_at, next_look_at
from services.sender.route import ATTEMPT_TIMEOUT, Route
from services.sender.settings import OnAmbiguous
from shared.bus.bucket import ConflictError
from shared.bus.client import REQUEST_TIMEOUT
from shared.bus.consumer import Done, HandBack, Outcome
from shared.channels import Channel
from shared.errors import BusUnavailableError
from shared.events import AttemptError, DeliveryRequest, Origin
from shared.ledger import Entry, Ledger, Record, State, position_of

_log = structlog.get_logger()

CLAIM_LEASE = timedelta(seconds=ATTEMPT_TIMEOUT + REQUEST_TIMEOUT + 2)
"""A claim without a result that is older than this belongs to a process that died: writing it down and the
attempt itself together take less."""

_SOON = timedelta(seconds=1)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Policy:
    """What follows from a failure.

    Attributes:
        delays: between the attempts.
        on_ambiguous: for providers that do not honour idempotency keys.
    """

    delays: tuple[timedelta, ...] = DEFAULT_DELAYS
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    clock: Callable[[], datetime] = _now
    random: Random = field(default_factory=Random)


class Deliverer:
    """Delivers requests, each to the route of its channel."""

    def __init__(
        self, ledger: Ledger, announcer: Announcer, routes: Mapping[Channel, Route], policy: Policy
    ) -> None:
        self._ledger = ledger
        self._announcer = announcer
        self._routes = routes
        self._policy = policy

    def finish_within(self, seconds: float) -> None:
        """Give the attempts under way no more time; one without an answer by then is recorded as such."""
        for route in self._routes.values():
            route.finish_within(seconds)

    async def deliver(self, request: DeliveryRequest, origin: Origin) -> Outcome:
        """Do what is next for the message, if anything is.

        Raises:
            BusUnavailableError: NATS does not answer; the request should come again.
        """
        try:
            return await self._take_step(request, origin)
        except ConflictError:
            return HandBack(_SOON)  # another process took the step; by then the ledger tells what came of it

    async def _take_step(self, request: DeliveryRequest, origin: Origin) -> Outcome:
        record = await self._ledger.look_up(request.message.id)
        if record is not None and (outcome := await self._settled(request, record, origin)):
            return outcome
        route = self._routes[request.message.channel]
        if self._is_early(request):
            pause = self._entry(request, State.DEFERRED, route, provider=None, due=request.message.send_at)
            await self._record(request, pause, after=record)
            await self._announcer.announce(request, pause, origin)
            return Done()
        async with route.slot():
            entry = self._without_sending(request, record, route)
            if entry is None:
                claim = self._entry(request, State.CLAIMED, route)
                record = await self._ledger.write(request.message.id, claim, after=record)
                entry = await self._send(request, route, claim)
        await self._record(request, entry, after=record)
        note(request, entry)
        await self._announcer.announce(request, entry, origin)
        return Done()

    async def _settled(self, request: DeliveryRequest, record: Record, origin: Origin) -> Outcome | None:
        """Tell what to do with a request that the ledger has something about; None is to send it."""
        entry = record.entry
        if entry.state is State.CANCELED:
            await self._announcer.announce(request, entry, origin)  # who canceled it may have died before
            return Done()
        position = position_of(request)
        if position > entry.position:
            same_round = request.round == entry.position[0]
            over = entry.state is State.SENT or (entry.state.ends_round and same_round)
            return Done() if over else None
        if position < entry.position:
            return Done()
        if entry.state is not State.CLAIMED:
            await self._announcer.announce(request, entry, origin)
            return Done()
        age = self._policy.clock() - entry.at
        if age < CLAIM_LEASE:
            return HandBack(CLAIM_LEASE - age)
        return None

    def _is_early(self, request: DeliveryRequest) -> bool:
        """Tell whether the message has to be put off until its time; when that has come, NATS decides."""
        send_at = request.message.send_at
        is_first_look = (request.attempt, request.deferrals) == (1, 0)
        return is_first_look and send_at is not None and self._policy.clock() < send_at

    def _without_sending(self, request: DeliveryRequest, record: Record | None, route: Route) -> Entry | None:
        """Tell what becomes of a request that is not to be sent now; None is to send it."""
        now = self._policy.clock()
        if (
            record is not None
            and record.entry.position == position_of(request)
            and not self._may_resend(route)
        ):
            return self._failed_without_knowing(request, route, now)
        if now >= request.expires_at:
            return self._entry(request, State.EXPIRED, route, provider=None)
        if blocked_until := route.blocked_until():
            return self._deferred(request, route, blocked_until)
        return None

    def _may_resend(self, route: Route) -> bool:
        """Tell whether a message that the provider may have may be sent to it again."""
        honours = route.provider.honours_idempotency_keys
        return honours or self._policy.on_ambiguous is OnAmbiguous.RESEND

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
            return self._deferred(request, route, now, error=error)
        if isinstance(failure, RejectedError):
            return claim.becomes(State.FAILED, now, error=error)
        if isinstance(failure, UnknownOutcomeError) and not self._may_resend(route):
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
        uncertain = isinstance(failure, UnknownOutcomeError)
        return claim.becomes(State.RETRYING, now, error=error, due=due, uncertain=uncertain)

    def _deferred(
        self,
        request: DeliveryRequest,
        route: Route,
        not_before: datetime,
        error: AttemptError | None = None,
    ) -> Entry:
        due = next_look_at(
            request.deferrals,
            not_before=not_before,
            now=self._policy.clock(),
            random=self._policy.random,
        )
        due = min(due, request.expires_at)
        return self._entry(request, State.DEFERRED, route, error=error, due=due)

    def _failed_without_knowing(self, request: DeliveryRequest, route: Route, now: datetime) -> Entry:
        error = AttemptError(
            attempt=request.attempt,
            code="ambiguous",
            detail="the process died while it sent this; the provider may have it",
            provider=route.provider.name,
            at=now,
        )
        return self._entry(request, State.FAILED, route, error=error)

    def _entry(self, request: DeliveryRequest, state: State, route: Route, **what: object) -> Entry:
        known = {"provider": route.provider.name, **what}
        return Entry(position=position_of(request), state=state, at=self._policy.clock(), **known)

    @retry(retry=retry_if_exception_type(BusUnavailableError), wait=wait_random_exponential(0.2, max=5))
    async def _record(self, request: DeliveryRequest, entry: Entry, *, after: Record | None) -> None:
        """Write down what happened, however long NATS is away: nobody else knows."""
        message_id = request.message.id
        try:
            await self._ledger.write(message_id, entry, after=after)
        except ConflictError:
            # Our own write may have gone through without its acknowledgement; or another process took
            # the claim over while this one was stopped, and knows less than we do.
            found = await self._ledger.look_up(message_id)
            if found and found.entry.position == entry.position and found.entry.state is State.CLAIMED:
                await self._ledger.write(message_id, entry, after=found)
            elif not found or found.entry != entry:
                raise
