"""The delivery of one message: look it up, wait for a slot, check the opt-outs, claim, send, record, publish.

Each step is recorded in the ledger before it is published to the streams, and a redelivery publishes the
outcome in the ledger again. A process may therefore die between any two lines of this module: the message is
not lost, and it is not sent twice if its provider honours idempotency keys.

Each step may be taken with another provider, as long as it is certain that none has the message yet.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tenacity import retry, retry_if_exception_type, wait_random

from services.sender import telemetry
from services.sender.event_publisher import EventPublisher
from services.sender.gate import LimitedError
from services.sender.policy import DeliveryPolicy
from services.sender.provider_client import ATTEMPT_TIMEOUT, ProviderClient, Slot
from services.sender.provider_selection import ProviderSelection
from shared.bus.client import REQUEST_TIMEOUT
from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.key_value import RevisionConflictError, Versioned
from shared.bus.suppression_list import SuppressionList
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError, UnavailableError
from shared.ledger import DeliveryState, Ledger, LedgerEntry
from shared.message import AttemptError, DeliveryRequest, Message
from shared.providers.base import OPTED_OUT, ProviderError
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState

CLAIM_LEASE = timedelta(seconds=ATTEMPT_TIMEOUT + REQUEST_TIMEOUT + 2)
"""A claim that has no result after this time belongs to a process that died: recording a claim and making the
attempt take less time."""

_SOON = timedelta(seconds=1)


class NoProviderError(UnavailableError):
    """No provider of the channel is available, so that the message waits in its place."""


class Deliverer:
    """Delivers messages, each through the first available provider."""

    def __init__(
        self,
        ledger: Ledger,
        suppressions: SuppressionList,
        events: EventPublisher,
        providers: ProviderSelection,
        policy: DeliveryPolicy,
    ) -> None:
        self._ledger = ledger
        self._suppressions = suppressions
        self._events = events
        self._providers = providers
        self._policy = policy
        self._is_stopping = False

    def finish_within(self, seconds: float) -> None:
        """Limit the attempts in progress to this time, and make no further ones.

        An attempt that has no answer by then is recorded as such.
        """
        self._is_stopping = True
        self._providers.finish_within(seconds)

    def can_send(self, channel: Channel) -> bool:
        """Return whether a message of the channel could be sent now, if only as a probe."""
        return self._providers.is_any_available(channel)

    def is_healthy(self, channel: Channel) -> bool:
        """Return whether a provider of the channel works, as far as is known."""
        return self._providers.is_any_healthy(channel)

    async def deliver(
        self,
        request: DeliveryRequest,
        origin: Origin,
        *,
        begin: Callable[[], None] = lambda: None,
        keeps_place: bool = False,
    ) -> Outcome:
        """Take the next step of a message, if there is one.

        Args:
            request: the message and its step.
            origin: where the request was read.
            begin: is called when the step is about to be claimed. Until then, the call may be cancelled.
            keeps_place: whether the message waits in its place while no provider is available. Otherwise it
                is deferred, which moves it to the stream of scheduled messages.

        Raises:
            NoProviderError: no provider is available, and the message keeps its place.
            BusUnavailableError: NATS does not answer; the request has to be delivered again.
        """
        try:
            return await self._take_step(request, origin, begin, keeps_place=keeps_place)
        except RevisionConflictError:
            # Another process is taking this step. When the request is delivered again, the ledger has the
            # outcome.
            return HandBack(_SOON)

    async def _take_step(
        self, request: DeliveryRequest, origin: Origin, begin: Callable[[], None], *, keeps_place: bool
    ) -> Outcome:
        found = await self._ledger.look_up(request.message.id)
        if found is not None:
            request = found.value.catch_up(request)
            if outcome := await self._settle(request, found.value, origin):
                return outcome
        if self._is_early(request):
            now, send_at = self._policy.clock(), request.message.send_at
            entry = LedgerEntry.of(request, DeliveryState.DEFERRED, now, due=send_at)
        else:
            entry, found = await self._try_providers(request, found, begin, keeps_place=keeps_place)
        await self._record(request, entry, after=found)
        telemetry.report_outcome(request, entry)
        await self._publish(request, entry, origin)
        return Done()

    async def _settle(self, request: DeliveryRequest, entry: LedgerEntry, origin: Origin) -> Outcome | None:
        """Settle a request according to the ledger, or return None if its step has to be taken now."""
        is_later_generation = request.generation > entry.step.generation
        if entry.state is DeliveryState.CANCELED or (
            entry.state is DeliveryState.SENT and is_later_generation
        ):
            # The process that cancelled the message may have died before it published the cancellation. A
            # replay of a message that was sent or cancelled sends nothing, but its generation has to end as
            # well.
            await self._events.publish(request, entry, origin)
            return Done()
        if request.step > entry.step:
            return Done() if entry.state.ends_generation and not is_later_generation else None
        if request.step < entry.step:
            return Done()
        if entry.state is not DeliveryState.CLAIMED:
            # The process that recorded this outcome may have died before it published it.
            await self._publish(request, entry, origin)
            return Done()
        # A process has claimed this step and may still be sending. After an outage of NATS it also needs time
        # to record the result that it has been holding since.
        age = self._policy.clock() - entry.at
        wait = max(CLAIM_LEASE - age, self._policy.grace - self._ledger.connected_for)
        return HandBack(wait) if wait > timedelta(0) else None

    def _is_early(self, request: DeliveryRequest) -> bool:
        """Return whether a scheduled message has to be deferred until its time.

        Only its first request is compared with the clock. Later ones arrive when they are due, by the clock
        of NATS.
        """
        send_at = request.message.send_at
        is_first_request = (request.attempt, request.deferral_count) == (1, 0)
        return is_first_request and send_at is not None and self._policy.clock() < send_at

    async def _try_providers(
        self,
        request: DeliveryRequest,
        found: Versioned[LedgerEntry] | None,
        begin: Callable[[], None],
        *,
        keeps_place: bool,
    ) -> tuple[LedgerEntry, Versioned[LedgerEntry] | None]:
        """Try the providers in turn as long as they defer the message.

        Returns:
            The entry to be recorded, and the entry after which it is to be recorded.
        """
        in_doubt_at = found.value.may_be_at if found else None
        if found and in_doubt_at and not self._may_resend(request, found.value, in_doubt_at):
            return self._policy.ambiguous(request, in_doubt_at), found
        deferrals: list[LedgerEntry] = []
        for client in self._candidates(request.message, in_doubt_at):
            if deferrals and self._is_stopping:
                break  # there is no time for another attempt
            claim = LedgerEntry.of(
                request,
                DeliveryState.CLAIMED,
                self._policy.clock(),
                provider=client.name,
                in_doubt_at=in_doubt_at,
            )
            try:
                async with client.slot(request) as slot:
                    # Nothing that was checked before waiting for the slot can be relied on.
                    begin()
                    claim = claim.becomes(DeliveryState.CLAIMED, self._policy.clock())
                    entry = await self._outcome_without_sending(request, slot, claim)
                    if entry is None:
                        found = await self._ledger.write(request.message.id, claim, after=found)
                        entry = await self._send(request, slot, claim)
            except LimitedError as exc:
                entry = self._policy.limited(request, claim, seconds=exc.seconds)
            if entry.state is not DeliveryState.DEFERRED:
                return entry, found
            deferrals.append(entry)
        was_claimed = any(entry.error for entry in deferrals)
        if keeps_place and not was_claimed and not self.can_send(request.message.channel):
            raise NoProviderError(f"no provider of {request.message.channel} is available")
        return min(deferrals, key=lambda entry: entry.due or entry.at), found

    def _candidates(self, message: Message, in_doubt_at: str | None) -> Sequence[ProviderClient]:
        """Return the clients that may send a message, in order.

        A message that a provider may already have goes to that provider first, which may recognise it, and to
        no other if it honours idempotency keys.
        """
        clients = self._providers.clients_for(message)
        asked = self._providers.client_of(in_doubt_at) if in_doubt_at else None
        if asked is None:
            return clients
        if asked.honours_idempotency_keys:
            return [asked]
        return [asked, *(client for client in clients if client is not asked)]

    def _may_resend(self, request: DeliveryRequest, entry: LedgerEntry, provider: str) -> bool:
        """Return whether to resend a message that the provider may have. A replay is a decision to do so."""
        is_replay = request.generation > entry.step.generation
        return is_replay or self._may_repeat(provider)

    def _may_repeat(self, provider: str) -> bool:
        client = self._providers.client_of(provider)
        honours_keys = client is not None and client.honours_idempotency_keys
        return self._policy.may_repeat(honours_idempotency_keys=honours_keys)

    async def _outcome_without_sending(
        self, request: DeliveryRequest, slot: Slot, claim: LedgerEntry
    ) -> LedgerEntry | None:
        """Return the entry of a request that must not be sent now, or None if it is to be sent.

        The circuit breaker is asked last, so that its probe is not wasted on a message that is not sent.
        """
        now = self._policy.clock()
        if now >= request.expires_at:
            return claim.becomes(DeliveryState.EXPIRED, now, provider=None)
        if suppression := await self._suppressions.suppression_of(request.message):
            return self._policy.suppressed(request, claim, suppression)
        if not slot.try_acquire():
            return self._policy.deferral(request, claim, not_before=now + slot.retry_in)
        return None

    async def _send(self, request: DeliveryRequest, slot: Slot, claim: LedgerEntry) -> LedgerEntry:
        try:
            provider_message_id = await slot.send()
        except ProviderError as exc:
            error = AttemptError(
                attempt=request.attempt,
                code=exc.code,
                detail=str(exc),
                provider=slot.provider,
                status_code=exc.status_code,
                at=self._policy.clock(),
            )
            telemetry.report_failed_attempt(request, error)
            may_repeat = self._may_repeat(slot.provider)
            return self._policy.after_failure(request, claim, exc, error, may_repeat=may_repeat)
        now = self._policy.clock()
        return claim.becomes(DeliveryState.SENT, now, provider_message_id=provider_message_id)

    @retry(retry=retry_if_exception_type(BusUnavailableError), wait=wait_random(0.1, 0.3))
    async def _record(
        self, request: DeliveryRequest, entry: LedgerEntry, *, after: Versioned[LedgerEntry] | None
    ) -> None:
        """Record an outcome, however long NATS is unavailable: no other process knows it."""
        message_id = request.message.id
        try:
            await self._ledger.write(message_id, entry, after=after)
        except RevisionConflictError:
            # Our own write may have been stored and its acknowledgement lost. Or the claim has expired, and
            # another process has claimed the step since. That process will find out everything by itself,
            # with one exception: that the provider has accepted the message.
            found = await self._ledger.look_up(message_id)
            if found and found.value == entry:
                return
            is_claimed_again = (
                found and found.value.step == entry.step and found.value.state is DeliveryState.CLAIMED
            )
            if not (is_claimed_again and entry.state is DeliveryState.SENT):
                raise
            await self._ledger.write(message_id, entry, after=found)

    async def _publish(self, request: DeliveryRequest, entry: LedgerEntry, origin: Origin) -> None:
        """Publish the outcome in the ledger, after the opt-out that the provider reported, if any."""
        error = entry.error
        if error and error.code == OPTED_OUT and error.provider:
            change = _opt_out_reported_by(error.provider, request.message, error.at)
            await self._suppressions.record(change, only_if_changed=True)
        await self._events.publish(request, entry, origin)


def _opt_out_reported_by(provider: str, message: Message, at: datetime) -> SuppressionChange:
    return SuppressionChange(
        channel=message.channel,
        ours=message.our_key,
        theirs=message.their_key,
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.PROVIDER,
        detail=provider,
        occurred_at=at,
    )
