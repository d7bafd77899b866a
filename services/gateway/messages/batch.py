"""Accepts batches of messages, with a result for each of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError

from services.gateway.http.deadline import deadline
from services.gateway.http.errors import InvalidRequestError, Problem, ProblemError
from services.gateway.http.fast_route import fault_of_parts
from services.gateway.messages.idempotency import IdempotencyStore, RequestRecord
from services.gateway.messages.schemas import EmailRequest, SendRequest, SmsRequest
from services.gateway.messages.service import MessageService, outbound_message, refusal_by_time
from shared.bus.publisher import TOO_LARGE, PublishRejectedError
from shared.events import Event, message_accepted
from shared.ids import MessageId, RequestId, new_message_id, request_id
from shared.message import DeliveryRequest, Priority
from shared.validation import MAX_BODY, context_of, faults_of

MAX_BATCH_BODY = 4 * 1024 * 1024
"""Bytes."""

_SMS_TYPES = ("sms", "mms")
_THREAD = {"subject", "in_reply_to", "references"}
"""The fields of a message that depend on the newest inbound one in its conversation."""

_TURN = 50
"""Messages that are handled without a break, which takes a few milliseconds."""

T = TypeVar("T")

Result = Event[DeliveryRequest] | Problem


class StoredItem(BaseModel):
    """The part of the result for a valid message of a batch that cannot be derived from the request."""

    id: MessageId
    thread: dict[str, Any] | None = None
    problem: Problem | None = None


class StoredBatch(RequestRecord):
    """The results for a batch; those of invalid messages are None."""

    time: AwareDatetime
    items: list[StoredItem | None]


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """The response to a batch.

    Attributes:
        results: the result for each item.
        is_replayed: whether an earlier request with the same idempotency key was accepted.
    """

    results: list[Result]
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class BatchService:
    """Accepts batches of messages.

    Attributes:
        sender: accepts single messages.
        idempotency: the batches with an idempotency key.
    """

    sender: MessageService
    idempotency: IdempotencyStore[StoredBatch]

    async def send(
        self,
        items: Sequence[object],
        *,
        caller: str,
        default_region: str,
        idempotency_key: str | None,
        trace: Mapping[str, str],
    ) -> AcceptedBatch:
        """Accept all valid messages of a batch together.

        Raises:
            InvalidRequestError: the idempotency key was used for a different batch.
            ProblemError: the results are too large to be remembered under the idempotency key.
            BusUnavailableError: JetStream does not acknowledge. The messages may be stored nevertheless;
                repeating the request with the same key does no harm.
        """
        context = context_of(default_region)
        requests = [_parse(item, context) async for item in _unhurried(items)]
        digest = _fingerprint(items)
        async with deadline():
            batch, is_replayed = await self._first(requests, caller, idempotency_key, digest)
            pairs = list(zip(requests, batch.items, strict=True))
            results = [self._result(*pair, batch, caller) async for pair in _unhurried(pairs)]
            await self.sender.publish_all([each for each in results if isinstance(each, Event)], trace)
        return AcceptedBatch(results, is_replayed)

    async def _first(
        self, requests: Sequence[SendRequest | Problem], caller: str, key: str | None, digest: str
    ) -> tuple[StoredBatch, bool]:
        """Return the results of the first request with the key, and whether that was an earlier one."""
        id_ = request_id(caller, f"batch\n{key}") if key else None  # no single message has such a key
        if id_ and (known := await self.idempotency.find(id_, digest)):
            return known, True
        batch = await self._decide(requests, digest)
        first = await self._remember(id_, batch) if id_ else batch
        return first, first is not batch

    async def _decide(self, requests: Sequence[SendRequest | Problem], digest: str) -> StoredBatch:
        now = self.sender.clock()
        valid = [each for each in requests if isinstance(each, SendRequest)]
        messages = [outbound_message(each, id_=new_message_id(), now=now) for each in valid]
        opt_outs = await self.sender.refusals_by_opt_out(messages)
        refusals = [
            self.sender.refusal_by_providers(message) or refusal_by_time(body.send_at, now) or opt_out
            for body, message, opt_out in zip(valid, messages, opt_outs, strict=True)
        ]
        replies = await asyncio.gather(*map(self.sender.as_reply_to_newest, messages))
        decided = iter(
            StoredItem(
                id=message.id,
                thread=reply.model_dump(include=_THREAD) if reply is not message else None,
                problem=refusal.document if refusal else None,
            )
            for message, reply, refusal in zip(messages, replies, refusals, strict=True)
        )
        items = [next(decided) if isinstance(each, SendRequest) else None for each in requests]
        return StoredBatch(fingerprint=digest, time=now, items=items)

    async def _remember(self, id_: RequestId, batch: StoredBatch) -> StoredBatch:
        try:
            return await self.idempotency.claim(id_, batch)
        except PublishRejectedError as exc:
            if exc.code != TOO_LARGE:
                raise
            raise ProblemError(413, "body_too_large", "The batch is too large; split it") from exc

    def _result(
        self, request: SendRequest | Problem, item: StoredItem | None, batch: StoredBatch, caller: str
    ) -> Result:
        if isinstance(request, Problem) or item is None:
            assert isinstance(request, Problem)  # noqa: S101 - the batch is the same as the first one
            return request
        if item.problem:
            return item.problem
        message = outbound_message(request, id_=item.id, now=batch.time)
        if item.thread:
            message = message.model_copy(update=item.thread)
        # The first attempt to publish it may have failed long ago, so its validity starts now.
        expires_at = message.expiry(self.sender.validity, self.sender.clock())
        return message_accepted(
            DeliveryRequest(message=message, caller=caller, expires_at=expires_at), time=batch.time
        )


async def _unhurried(items: Sequence[T]) -> AsyncIterator[T]:
    """Yield the items, and let other requests proceed now and then."""
    for number, item in enumerate(items):
        if number % _TURN == 0:
            await asyncio.sleep(0)
        yield item


def _parse(item: object, context: dict[str, str]) -> SendRequest | Problem:
    if not isinstance(item, dict):
        return InvalidRequestError(*faults_of([{"type": "model_type", "loc": (), "msg": ""}])).document
    if fault := fault_of_parts(item):
        return InvalidRequestError(fault).document
    if len(_encode(item)) > MAX_BODY:
        return ProblemError(413, "body_too_large", f"The message is larger than {MAX_BODY} bytes").document
    model = SmsRequest if item.get("type") in _SMS_TYPES else EmailRequest
    try:
        body: SendRequest = model.model_validate(item, context=context)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        return InvalidRequestError(*faults_of(errors)).document
    return body if body.priority else body.model_copy(update={"priority": Priority.BULK})


def _fingerprint(items: Sequence[object]) -> str:
    return blake2b(_encode(items), digest_size=16).hexdigest()


def _encode(value: object) -> bytes:
    """Return JSON, which may have lone surrogates and integers of any size before it is validated."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode(errors="surrogatepass")
