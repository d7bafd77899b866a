"""The controls under `/mock`, which are the same for all APIs of a channel."""

from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Depends, Query, Response, status
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from mock_providers.api import MockApi, Receipt
from mock_providers.behaviour import NORMAL, Behaviour, BehaviourSwitch
from mock_providers.ledger import Stats, bare_key
from mock_providers.webhooks import Payload, WebhookResult

Apis = Sequence[MockApi[Any]]
ProviderName = Annotated[str | None, Query(description="The name of one of the APIs of this channel")]


def control_routes(apis: Apis, random: Random) -> APIRouter:
    selection = _Selection(apis)
    router = APIRouter(prefix="/mock")
    router.include_router(_behaviour_routes(selection, random), prefix="/behaviour", tags=["behaviour"])
    router.include_router(_ledger_routes(selection), tags=["messages"])
    router.include_router(_webhook_routes(selection), tags=["webhooks"])
    return router


class _Selection:
    """Selects APIs of a channel by the query parameter `provider`."""

    def __init__(self, apis: Apis) -> None:
        self._by_name = {api.name: api for api in apis}
        self._default = apis[0]

    async def many(self, provider: ProviderName = None) -> Apis:
        """Return the named API, or all of them."""
        return [*self._by_name.values()] if provider is None else [self._named(provider)]

    async def one(self, provider: ProviderName = None) -> MockApi[Any]:
        """Return the named API, or the default one."""
        return self._default if provider is None else self._named(provider)

    def _named(self, name: str) -> MockApi[Any]:
        if name not in self._by_name:
            raise _invalid("query", "provider", [*self._by_name])
        return self._by_name[name]


def _invalid(place: str, field: str, allowed: Sequence[str]) -> RequestValidationError:
    return RequestValidationError(
        [{"type": "value_error", "loc": (place, field), "msg": f"must be one of {', '.join(allowed)}"}]
    )


def _behaviour_routes(selection: _Selection, random: Random) -> APIRouter:
    router = APIRouter()

    @router.get("", summary="Get the behaviour")
    async def get_behaviour(api: Annotated[MockApi[Any], Depends(selection.one)]) -> Behaviour:
        """Return the behaviour in effect, with the `times` that are left."""
        return api.behaviour.current

    @router.put("", summary="Set the behaviour")
    async def set_behaviour(
        behaviour: Behaviour, apis: Annotated[Apis, Depends(selection.many)]
    ) -> Behaviour:
        """Replace the behaviour of all APIs, which then share its `times`, or of the named one."""
        outcomes = dict.fromkeys(outcome for api in apis for outcome in api.outcomes)
        if behaviour.outcome is not None and behaviour.outcome not in outcomes:
            raise _invalid("body", "outcome", [*outcomes])
        switch_to(behaviour, apis)
        return behaviour

    @router.delete("", status_code=status.HTTP_204_NO_CONTENT, summary="Reset the behaviour")
    async def reset_behaviour(apis: Annotated[Apis, Depends(selection.many)]) -> None:
        """Return all APIs, or the named one, to the normal behaviour."""
        switch_to(NORMAL, apis)

    def switch_to(behaviour: Behaviour, apis: Apis) -> None:
        switch = BehaviourSwitch(random, behaviour)
        for api in apis:
            api.behaviour = switch

    return router


def _ledger_routes(selection: _Selection) -> APIRouter:
    router = APIRouter()

    @router.get("/messages", summary="List accepted messages")
    async def list_messages(
        apis: Annotated[Apis, Depends(selection.many)], idempotency_key: str | None = None
    ) -> Response:
        """List accepted messages, oldest first, or only those with an idempotency key."""
        if key := bare_key(idempotency_key):
            messages = [message for api in apis if (message := api.ledger.find(key))]
        else:
            messages = [message for api in apis for message in api.ledger.messages()]
            messages.sort(key=attrgetter("accepted_at"))
        content = orjson.dumps({"items": messages}, option=orjson.OPT_UTC_Z)
        return Response(content, media_type="application/json")

    @router.delete("/messages", status_code=status.HTTP_204_NO_CONTENT, summary="Forget all messages")
    async def forget_messages(apis: Annotated[Apis, Depends(selection.many)]) -> None:
        """Forget the messages and their idempotency keys, and reset the statistics."""
        for api in apis:
            api.ledger.clear()

    @router.get("/stats", summary="Get statistics")
    async def get_stats(apis: Annotated[Apis, Depends(selection.many)]) -> Stats:
        return sum((api.ledger.stats for api in apis), Stats())

    return router


def _webhook_routes(selection: _Selection) -> APIRouter:
    router = APIRouter(responses={502: {"description": "The gateway did not respond"}})

    @router.post("/inbound", summary="Send an inbound message")
    async def send_inbound(
        api: Annotated[MockApi[Any], Depends(selection.one)],
        fields: Annotated[Payload, Body(default_factory=dict)],
    ) -> WebhookResult:
        """Send an inbound message to the gateway.

        The body has fields of the provider's webhook. They are sent unchanged; examples are sent for the
        others.
        """
        try:
            return await api.send_inbound(fields)
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc

    @router.post("/receipts", summary="Send a delivery receipt")
    async def send_receipt(
        api: Annotated[MockApi[Any], Depends(selection.one)], receipt: Receipt
    ) -> WebhookResult:
        """Send a delivery receipt to the gateway, in the form that the provider has for it."""
        try:
            return await api.send_receipt(receipt)
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc

    return router
