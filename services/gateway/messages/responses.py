"""The response to a request that was accepted."""

from fastapi import Response

from services.gateway.messages.idempotency import REPLAYED_HEADER
from services.gateway.messages.service import Accepted
from shared.events import accepted_status
from shared.resources.messages import MessageResponse


def accepted_response(accepted: Accepted, response: Response) -> MessageResponse:
    """Return the message, and set the headers of the response."""
    message = accepted.event.data.message
    response.headers["Location"] = f"/api/messages/{message.id}"
    if accepted.is_replayed:
        response.headers[REPLAYED_HEADER] = "true"
    return MessageResponse.of(message, accepted_status(accepted.event))
