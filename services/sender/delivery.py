"""The delivery of one message: look it up, wait for a slot, check the opt-outs, claim, send, record, publish.

Each step is recorded in the ledger before it is published to the streams, and a redelivery publishes the
outcome in the ledger again. A process may therefore die between any two lines of this module: the message is
not lost, and it is not sent twice if its provider honours idempotency keys.

Each step may be taken with another provider, as long as it is certain that none has the message yet.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tenacity import retry, retry_if_exception_type, wait_random

from services.sender import telemetry
from services.sender.event_publisher import EventPublisher
from services.sender.gate import LimitedError
from services.sender.provider_client import ATTEMPT_TIMEOUT, Slot
from services.sender.provider_selection import ProviderSelection
from shared.bus.client import REQUEST_TIMEOUT
from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.key_value import RevisionConflictError, Versioned
from shared.bus.suppression_list import SuppressionList
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError, UnavailableError
from shared.ledger import Ledger
from shared.lifecycle import (
    Attempt,
    DeliveryPolicy,
    DeliveryState,
    Facts,
    Ignore,
    LedgerEntry,
    Publish,
    Record,
    Wait,
    candidates,
    limited,
    postponement,
    refusal,
)
from shared.message import DeliveryRequest, Message
from shared.providers.base import OPTED_OUT, ProviderError
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState

CLAIM_LEASE = timedelta(seconds=ATTEMPT_TIMEOUT + REQUEST_TIMEOUT + 2)
"""A claim that has no result after this time belongs to a process that died: recording a claim and making the
attempt take less time."""

_SOON = timedelta(seconds=1)


def _now() -> datetime:
    return datetime.now(UTC)


class NoProviderError(UnavailableError):
    """No provider of the channel is available, so the message keeps its place."""


class Deliverer:
    """Delivers messages, each through the first available provider."""

    def __init__(
        self,
        ledger: Ledger,
        suppressions: SuppressionList,
        events: EventPublisher,
        providers: ProviderSelection,
        policy: DeliveryPolicy,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._ledger = ledger
        self._suppressions = suppressions
        self._events = events
        self._providers = providers
        self._policy = policy
        self._clock = clock
        self._is_stopping = False

    def finish_within(self, seconds: float) -> None:
        """Limit the attempts in progress to this time, and start no further ones.

        An attempt that has no response by then is recorded as such.
        """
        self._is_stopping = True
        self._providers.finish_within(seconds)

    def can_send(self, channel: Channel) -> bool:
        """Return whether a message of the channel could be sent now, if only as a probe."""
        return self._providers.is_any_available(channel)

    def is_healthy(self, channel: Channel) -> bool:
        """Return whether any provider of the channel works, as far as is known."""
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
            begin: called when the step is about to be claimed. Until then, `deliver` may be cancelled.
            keeps_place: whether the message waits in its place while no provider is available. Otherwise it
                is deferred, which moves it to the stream of scheduled messages.

        Raises:
            NoProviderError: no provider is available or the provider asked us to wait, and the message keeps
                its place.
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
        now = self._clock()
        facts = Facts(
            lease=CLAIM_LEASE,
            connected_for=self._ledger.connected_for,
            honouring_keys=self._providers.honouring_keys,
            keeps_place=keeps_place,
        )
        match self._policy.decide(found.value if found else None, request, now, facts):
            case Ignore():
                return Done()
            case Wait(until):
                return HandBack(until - now)
            case Publish(request, entry):
                await self._publish(request, entry, origin)
                return Done()
            case Record(request, entry):
                pass
            case Attempt(request, in_doubt_at):
                entry, found = await self._try_providers(request, in_doubt_at, found, begin, facts)
        entry = await self._record(request, entry, after=found)
        if entry.state is DeliveryState.RELEASED:
            raise NoProviderError(f"{entry.provider} asked us to wait")
        telemetry.report_outcome(request, entry)
        await self._publish(request, entry, origin)
        return Done()

    async def _try_providers(
        self,
        request: DeliveryRequest,
        in_doubt_at: str | None,
        found: Versioned[LedgerEntry] | None,
        begin: Callable[[], None],
        facts: Facts,
    ) -> tuple[LedgerEntry, Versioned[LedgerEntry] | None]:
        """Try the providers in turn as long as they postpone the message.

        Returns:
            The entry to be recorded, and the entry after which it is to be recorded.
        """
        asked = self._providers.client_of(in_doubt_at) if in_doubt_at else None
        postponed: list[LedgerEntry] = []
        for client in candidates(self._providers.clients_for(request.message), asked):
            if postponed and self._is_stopping:
                break  # there is no time for another attempt
            claim = LedgerEntry.of(
                request, DeliveryState.CLAIMED, self._clock(), provider=client.name, in_doubt_at=in_doubt_at
            )
            try:
                async with client.slot(request) as slot:
                    # Any check from before the wait for the slot may be out of date.
                    begin()
                    claim = claim.becomes(DeliveryState.CLAIMED, self._clock())
                    entry = await self._outcome_without_sending(request, slot, claim)
                    if entry is None:
                        found = await self._ledger.write(request.message.id, claim, after=found)
                        entry = await self._send(request, slot, claim, facts)
            except LimitedError as exc:
                entry = limited(request, claim, self._clock(), exc.seconds)
            if not entry.is_postponed:
                return entry, found
            postponed.append(entry)
        was_claimed = any(entry.error for entry in postponed)
        if facts.keeps_place and not was_claimed and not self.can_send(request.message.channel):
            raise NoProviderError(f"no provider of {request.message.channel} is available")
        return postponement(postponed), found

    async def _outcome_without_sending(
        self, request: DeliveryRequest, slot: Slot, claim: LedgerEntry
    ) -> LedgerEntry | None:
        """Return the entry of a request that must not be sent now, or None if it is to be sent.

        The circuit breaker is asked last, so that its probe is not wasted on a message that is not sent.
        """
        suppression = await self._suppressions.suppression_of(request.message)
        if entry := refusal(request, claim, suppression):
            return entry
        if not slot.try_acquire():
            now = self._clock()
            return self._policy.deferral(request, claim, now, not_before=now + slot.retry_in)
        return None

    async def _send(
        self, request: DeliveryRequest, slot: Slot, claim: LedgerEntry, facts: Facts
    ) -> LedgerEntry:
        try:
            provider_message_id = await slot.send()
        except ProviderError as exc:
            entry = self._policy.after_failure(request, claim, exc, self._clock(), facts)
            telemetry.report_failed_attempt(request, entry)
            return entry
        return claim.becomes(DeliveryState.SENT, self._clock(), provider_message_id=provider_message_id)

    async def _record(
        self, request: DeliveryRequest, entry: LedgerEntry, *, after: Versioned[LedgerEntry] | None
    ) -> LedgerEntry:
        """Record an outcome, however long NATS is unavailable: no other process knows it.

        Returns:
            The entry as it was recorded.
        """
        try:
            return await self._try_to_record(request, entry, after)
        except BusUnavailableError:
            return await self._record_later(request, entry, after)

    # Used only after a failure: tenacity itself takes a tenth of the CPU time of a delivery.
    @retry(retry=retry_if_exception_type(BusUnavailableError), wait=wait_random(0.1, 0.3))
    async def _record_later(
        self, request: DeliveryRequest, entry: LedgerEntry, after: Versioned[LedgerEntry] | None
    ) -> LedgerEntry:
        return await self._try_to_record(request, entry, after)

    async def _try_to_record(
        self, request: DeliveryRequest, entry: LedgerEntry, after: Versioned[LedgerEntry] | None
    ) -> LedgerEntry:
        message_id = request.message.id
        try:
            await self._ledger.write(message_id, entry, after=after)
        except RevisionConflictError:
            # Either our own write was stored but its acknowledgement was lost, or our claim has expired and
            # another process has taken the step since.
            found = await self._ledger.look_up(message_id)
            if found and found.value == entry:
                return entry
            correction = entry.correct(found.value) if found else None
            if correction is None:
                raise
            await self._ledger.write(message_id, correction, after=found)
            return correction
        return entry

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
