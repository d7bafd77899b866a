"""The delivery of one message: look it up, wait for a slot, check the opt-outs, claim, send, record, publish.

Each step is recorded in the ledger before it is published to the streams, and a redelivery publishes the
outcome in the ledger again. A process may therefore die between any two lines of this module: the message is
not lost, and it is not sent twice if its provider honours idempotency keys.

Each step may be taken with another provider, as long as it is certain that none has the message yet.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from services.sender import telemetry
from services.sender.claim import LEASE, Claim
from services.sender.event_publisher import EventPublisher
from services.sender.gate import LimitedError
from services.sender.provider_client import Slot
from services.sender.provider_selection import ProviderSelection
from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.key_value import RevisionConflictError, Versioned
from shared.bus.suppression_list import SuppressionList
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError, UnavailableError
from shared.ids import MessageId
from shared.ledger import Ledger
from shared.lifecycle.decisions import Attempt, Facts, Ignore, Publish, Record, Wait
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.policy import DeliveryPolicy
from shared.lifecycle.sending import candidates, limited, postponement, refusal, unsendable
from shared.message import DeliveryRequest, Message
from shared.providers.base import OPTED_OUT, NotReachedError, ProviderError, UnknownOutcomeError
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState

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
        self._unused: dict[MessageId, LedgerEntry] = {}

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
        may_wait: bool = True,
    ) -> Outcome:
        """Take the next step of a message, if there is one.

        Args:
            request: the message and its step.
            origin: where the request was read.
            begin: called when the step is about to be claimed. Until then, `deliver` may be cancelled.
            keeps_place: whether the message waits in its place while no provider is available. Otherwise it
                is deferred, which moves it to the stream of scheduled messages.
            may_wait: whether the message may wait in this process for its limits. Otherwise, it is deferred
                if it would wait for long.

        Raises:
            NoProviderError: no provider is available or the provider asked us to wait, and the message keeps
                its place.
            BusUnavailableError: NATS does not answer; the request has to be delivered again.
        """
        try:
            facts = Facts(
                lease=LEASE,
                connected_for=self._ledger.connected_for,
                honouring_keys=self._providers.honouring_keys,
                keeps_place=keeps_place,
                may_wait=may_wait,
            )
            return await self._take_step(request, origin, begin, facts)
        except RevisionConflictError:
            # Another process is taking this step. When the request is delivered again, the ledger has the
            # outcome.
            return HandBack(_SOON)

    async def schedule_again(self, request: DeliveryRequest, at: datetime) -> None:
        """Schedule the same step of a message once more, for a time in the past.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        await self._events.schedule(request, time=at, due=at)

    async def _take_step(
        self, request: DeliveryRequest, origin: Origin, begin: Callable[[], None], facts: Facts
    ) -> Outcome:
        found = await self._look_up(request.message.id)
        now = self._clock()
        claim = Claim(self._ledger, request.message.id, found, self._clock)
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
                entry = await self._try_providers(request, in_doubt_at, claim, begin, facts)
        entry = await claim.record(entry)
        if entry.state is DeliveryState.RELEASED:
            if not (found and _is_reported(found.value, entry)):
                await self._publish(request, entry, origin)
            raise NoProviderError(f"{entry.provider} asked us to wait")
        telemetry.report_outcome(request, entry)
        await self._publish(request, entry, origin)
        return Done()

    async def _try_providers(
        self,
        request: DeliveryRequest,
        in_doubt_at: str | None,
        claim: Claim,
        begin: Callable[[], None],
        facts: Facts,
    ) -> LedgerEntry:
        """Try the providers in turn as long as they postpone the message, and return the outcome."""
        asked = self._providers.client_of(in_doubt_at) if in_doubt_at else None
        clients = candidates(self._providers.clients_for(request.message), asked)
        if not clients:
            return unsendable(request, in_doubt_at, self._clock())
        postponed: list[LedgerEntry] = []
        for client in clients:
            if postponed and self._is_stopping:
                break  # there is no time for another attempt
            claimed = LedgerEntry.of(
                request, DeliveryState.CLAIMED, self._clock(), provider=client.name, in_doubt_at=in_doubt_at
            )
            try:
                async with client.slot(request, may_wait=facts.may_wait) as slot:
                    # Any check from before the wait for the slot may be out of date.
                    begin()
                    claimed = claimed.becomes(DeliveryState.CLAIMED, self._clock())
                    entry = await self._outcome_without_sending(request, slot, claimed)
                    if entry is None:
                        claimed = await self._take(request, claim, claimed)
                        entry = await self._send(request, slot, claim, claimed, facts)
            except LimitedError as exc:
                entry = limited(request, claimed, self._clock(), exc.seconds)
            if not entry.is_postponed:
                return entry
            postponed.append(entry)
        was_claimed = any(entry.error for entry in postponed)
        if facts.keeps_place and not was_claimed and not self.can_send(request.message.channel):
            raise NoProviderError(f"no provider of {request.message.channel} is available")
        return postponement(postponed)

    async def _look_up(self, message_id: MessageId) -> Versioned[LedgerEntry] | None:
        found = await self._ledger.look_up(message_id)
        if found and found.value == self._unused.get(message_id):
            # The acknowledgement of this claim was lost, and no request was made after it.
            return Versioned(found.value.becomes(DeliveryState.RELEASED, found.value.at), found.revision)
        return found

    async def _take(self, request: DeliveryRequest, claim: Claim, entry: LedgerEntry) -> LedgerEntry:
        message_id = request.message.id
        try:
            taken = await claim.take(entry)
        except BusUnavailableError:
            self._unused[message_id] = claim.last
            raise
        self._unused.pop(message_id, None)
        return taken

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
        self, request: DeliveryRequest, slot: Slot, claim: Claim, claimed: LedgerEntry, facts: Facts
    ) -> LedgerEntry:
        try:
            provider_message_id = await _send_while_valid(slot, claim)
        except ProviderError as exc:
            entry = self._policy.after_failure(request, claimed, exc, self._clock(), facts)
            telemetry.report_failed_attempt(request, entry)
            return entry
        return claimed.becomes(DeliveryState.SENT, self._clock(), provider_message_id=provider_message_id)

    async def _publish(self, request: DeliveryRequest, entry: LedgerEntry, origin: Origin) -> None:
        """Publish the outcome in the ledger, after the opt-out that the provider reported, if any."""
        error = entry.error
        # It is not known which member of a group it was.
        if error and error.code == OPTED_OUT and error.provider and not request.message.recipients:
            group = self._suppressions.groups.get(error.provider)
            change = _opt_out_reported_by(error.provider, request.message, error.at, group=group)
            await self._suppressions.record(change, only_if_changed=True)
        await self._events.publish(request, entry, origin)


async def _send_while_valid(slot: Slot, claim: Claim) -> str:
    """Send a message and return the provider's message id, as long as no other process may take the step."""
    await slot.until_due()
    if not claim.is_valid:
        raise NotReachedError("claim_expired", "the claim expired before the request could be made")
    try:
        async with claim.kept():
            return await slot.send(may_repeat=lambda: claim.is_valid)
    except TimeoutError as exc:
        raise UnknownOutcomeError("claim_expired", "the claim could not be renewed in time") from exc


def _is_reported(before: LedgerEntry, entry: LedgerEntry) -> bool:
    """Return whether an earlier request of the same attempt was throttled, which was reported then.

    A provider may throttle the message each time that it is tried again.
    """
    return before.state is DeliveryState.RELEASED and before.error is not None and before.step == entry.step


def _opt_out_reported_by(
    provider: str, message: Message, at: datetime, *, group: str | None
) -> SuppressionChange:
    return SuppressionChange(
        channel=message.channel,
        ours=group or message.from_key,
        theirs=message.to_key,
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.PROVIDER,
        detail=provider,
        occurred_at=at,
    )
