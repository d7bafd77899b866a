"""Creates, changes and deletes webhook endpoints."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from services.gateway.http.errors import ConflictError, InvalidRequestError, NotFoundError
from services.gateway.http.parameters import parse_address
from services.gateway.webhook_endpoints.schemas import (
    WebhookEndpointCreate,
    WebhookEndpointUpdate,
    require_public,
)
from shared.bus.client import Bus
from shared.bus.key_value import RevisionConflictError, Versioned
from shared.bus.publisher import Publisher
from shared.bus.topology import NOTIFICATION_SUBJECTS, Stream
from shared.bus.webhook_endpoints import EndpointStore
from shared.endpoint_secrets import SecretCipher, new_secret
from shared.errors import BusUnavailableError
from shared.ids import EndpointId, new_endpoint_id, request_id
from shared.resources.webhook_endpoints import EndpointState
from shared.validation import Fault
from shared.webhook_endpoints import (
    MAX_SECRETS,
    SECRET_OVERLAP,
    DisabledReason,
    StoredSecret,
    WebhookEndpoint,
)

MAX_ENDPOINTS = 1_000

_ATTEMPTS = 5

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class CreatedEndpoint:
    """An endpoint with its secret.

    Attributes:
        is_replayed: whether an earlier request with the same idempotency key created it.
    """

    endpoint: WebhookEndpoint
    secret: str
    is_replayed: bool


def place_of(endpoint: WebhookEndpoint) -> tuple[datetime, UUID]:
    """Return the values by which endpoints are listed."""
    return endpoint.created_at, endpoint.id


class WebhookEndpointService:
    """Manages webhook endpoints; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        cipher: SecretCipher,
        default_region: str,
        clock: Clock,
        *,
        allow_private: bool,
    ) -> None:
        self._bus = bus
        self._store = EndpointStore(bus, publisher)
        self._cipher = cipher
        self._default_region = default_region
        self._clock = clock
        self._allow_private = allow_private

    async def all(self) -> Sequence[WebhookEndpoint]:
        """Return all endpoints, newest first."""
        found, _ = await self._store.changes()
        existing = [endpoint for endpoint in found if not endpoint.is_deleted]
        return sorted(existing, key=place_of, reverse=True)

    async def get(self, id_: UUID | None) -> WebhookEndpoint:
        """Return an endpoint.

        Raises:
            NotFoundError: there is none with this id.
        """
        return (await self._find(id_)).value

    async def create(
        self, body: WebhookEndpointCreate, caller: str, idempotency_key: str | None = None
    ) -> CreatedEndpoint:
        """Create an endpoint, unless an earlier request with the same key has done so.

        Raises:
            InvalidRequestError: a field is not valid, or the key was used for a different request.
            ConflictError: there is no key to encrypt the secret with, there are too many endpoints, or the
                endpoint of the earlier request was deleted.
        """
        self._require_key()
        id_, digest = _id_for(caller, idempotency_key), _digest(body) if idempotency_key else ""
        if idempotency_key and (first := await self._created_before(id_, digest)):
            return first
        if len(await self.all()) >= MAX_ENDPOINTS:
            raise ConflictError("too_many_webhook_endpoints", f"There are already {MAX_ENDPOINTS} endpoints")
        secret, now = new_secret(), self._clock()
        endpoint = WebhookEndpoint(
            id=id_,
            request_digest=digest,
            **self._parsed(body.model_dump()),
            secrets=[StoredSecret(ciphertext=self._cipher.encrypt(secret))],
            after=await self._newest(),
            enabled_at=now,
            created_at=now,
            updated_at=now,
        )
        try:
            await self._store.put(endpoint, after=None)
        except RevisionConflictError:
            first = await self._created_before(id_, digest)
            if first is None:
                # A replica of the bucket may lag behind its leader.
                raise BusUnavailableError("the webhook endpoint cannot be read yet") from None
            return first
        return CreatedEndpoint(endpoint, secret, is_replayed=False)

    async def _created_before(self, id_: EndpointId, digest: str) -> CreatedEndpoint | None:
        """Return the endpoint that an earlier request with the same key has created, if there is one."""
        found = await self._store.get(id_)
        if found is None:
            return None
        endpoint = found.value
        if endpoint.request_digest != digest:
            raise InvalidRequestError(Fault("Idempotency-Key", "was used for a different request"))
        if endpoint.is_deleted:
            detail = "The webhook endpoint that was created with this Idempotency-Key was deleted"
            raise ConflictError("webhook_endpoint_deleted", detail)
        return CreatedEndpoint(
            endpoint, self._cipher.decrypt(endpoint.secrets[0].ciphertext), is_replayed=True
        )

    async def update(self, id_: UUID | None, body: WebhookEndpointUpdate) -> WebhookEndpoint:
        """Change the given fields of an endpoint."""
        changes = self._parsed(body.model_dump(include=body.model_fields_set))
        state = changes.pop("state", None)

        async def change(endpoint: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
            changed = endpoint.model_copy(update={**changes, "updated_at": now})
            if state is EndpointState.DISABLED and changed.is_enabled:
                return changed.disabled(DisabledReason.REQUESTED, now)
            if state is EndpointState.ENABLED and not changed.is_enabled:
                enabled = {"disabled_reason": None, "disabled_at": None, "enabled_at": now}
                return changed.model_copy(update={**enabled, "after": await self._newest()})
            return changed

        return await self._change(id_, change)

    async def rotate_secret(self, id_: UUID | None) -> tuple[WebhookEndpoint, str]:
        """Give an endpoint a new secret; the former one is used as well for a day."""
        self._require_key()
        secret = new_secret()
        current = StoredSecret(ciphertext=self._cipher.encrypt(secret))

        async def change(endpoint: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
            expiry = {"expires_at": now + SECRET_OVERLAP}
            former = [
                each if each.expires_at else each.model_copy(update=expiry)
                for each in endpoint.secrets_at(now)
            ]
            secrets = [current, *former][:MAX_SECRETS]
            return endpoint.model_copy(update={"secrets": secrets, "updated_at": now})

        return await self._change(id_, change), secret

    async def delete(self, id_: UUID | None) -> None:
        async def change(endpoint: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
            # The entry only lets notifiers notice the deletion, so it keeps no secrets.
            return endpoint.model_copy(update={"is_deleted": True, "secrets": [], "updated_at": now})

        await self._change(id_, change)

    async def _newest(self) -> int:
        """Return the sequence of the newest event, or 0."""
        answer = await self._bus.last_messages(Stream.NOTIFICATIONS, [NOTIFICATION_SUBJECTS])
        return answer.messages[0].sequence if answer.messages else 0

    async def _find(self, id_: UUID | None) -> Versioned[WebhookEndpoint]:
        found = id_ and await self._store.get(EndpointId(id_))
        if not found or found.value.is_deleted:
            raise NotFoundError("webhook_endpoint_not_found", "Webhook endpoint not found")
        return found

    async def _change(self, id_: UUID | None, change: Any) -> WebhookEndpoint:  # noqa: ANN401 - see above
        """Change an endpoint, and try again if another request has changed it in the meantime."""
        for _ in range(_ATTEMPTS):
            found = await self._find(id_)
            changed: WebhookEndpoint = await change(found.value, self._clock())
            try:
                await self._store.put(changed, after=found)
            except RevisionConflictError:
                continue
            return changed
        raise ConflictError("webhook_endpoint_changing", "Other requests are changing the webhook endpoint")

    def _parsed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields with the keys of their addresses. Raises InvalidRequestError."""
        if "url" in fields and not self._allow_private:
            try:
                require_public(fields["url"])
            except ValueError as exc:
                raise InvalidRequestError(Fault("url", str(exc))) from exc
        if "addresses" in fields:
            fields["addresses"] = [
                parse_address(address, f"addresses.{number}", default_region=self._default_region)[1]
                for number, address in enumerate(fields["addresses"])
            ]
        return fields

    def _require_key(self) -> None:
        if not self._cipher:
            detail = "The service has no WEBHOOK_ENDPOINT_KEY, with which it could store secrets"
            raise ConflictError("webhook_endpoints_not_configured", detail)


def _id_for(caller: str, idempotency_key: str | None) -> EndpointId:
    if idempotency_key is None:
        return new_endpoint_id()
    return EndpointId(request_id(caller, f"webhook endpoint\n{idempotency_key}"))


def _digest(body: WebhookEndpointCreate) -> str:
    fields = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return blake2b(fields.encode(), digest_size=16).hexdigest()
