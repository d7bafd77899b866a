"""`POST /messages`: what a provider accepts, and what it answers."""

from datetime import UTC, datetime
from http import HTTPStatus
from uuid import uuid4

import orjson
from fastapi import Request, Response
from pydantic import ValidationError

from mock_providers.answers import answer
from mock_providers.behaviour import Behaviour, BehaviourSwitch
from mock_providers.connections import linger
from mock_providers.contract import Contract
from mock_providers.ledger import AcceptedMessage, Ledger


class Provider:
    """Takes messages as its contract says, except for what its behaviour says."""

    def __init__(self, contract: Contract, behaviour: BehaviourSwitch, ledger: Ledger) -> None:
        self._contract = contract
        self._behaviour = behaviour
        self._ledger = ledger

    async def take(self, request: Request) -> Response:
        body = await request.body()
        key = bare_key(request.headers.get("idempotency-key"))
        behaviour = self._behaviour.next()
        # The message is accepted when it arrives; it is the answer that comes late, or never.
        response = self._settle(body, key, behaviour)
        await linger(request, behaviour)
        return response

    def new_id(self) -> str:
        return f"{self._contract.id_prefix}{uuid4().hex}"

    def _settle(self, body: bytes, key: str | None, behaviour: Behaviour) -> Response:
        """Accept the message or don't, and count it. Awaits nothing, so that repeats can't overlap."""
        counts = self._ledger.counts
        if not behaviour.accepts:
            counts.refused += 1
            status = behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE
            return _error(status, "simulated", "this provider was told to fail", behaviour)

        message = self._ledger.find(key) if key else None
        if message:
            counts.repeated_keys += 1
        else:
            try:
                self._contract.outbound.model_validate(orjson.loads(body))
            except ValueError as exc:
                counts.refused += 1
                return _error(HTTPStatus.BAD_REQUEST, "invalid_message", _reasons(exc), behaviour)
            message = AcceptedMessage(self.new_id(), key, datetime.now(UTC), orjson.Fragment(body))
            self._ledger.add(message)
        status = behaviour.status or HTTPStatus.ACCEPTED
        return answer(status, {self._contract.id_field: message.id}, behaviour)


def bare_key(key: str | None) -> str | None:
    """An idempotency key without the quotes that it may come in; None when there is none."""
    return key.strip().strip('"') or None if key else None


def _error(status: int, code: str, message: str, behaviour: Behaviour) -> Response:
    return answer(status, {"error": code, "message": message}, behaviour)


def _reasons(error: ValueError) -> str:
    """Why a payload is unusable, in one line."""
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    return "; ".join(
        ": ".join([".".join(map(str, detail["loc"])), detail["msg"]]).removeprefix(": ")
        for detail in error.errors(include_url=False)
    )
