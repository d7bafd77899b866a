"""Replies in a conversation, which determines their sender and recipient."""

from typing import Any

from pydantic import ValidationError

from services.gateway.http.errors import InvalidRequestError
from services.gateway.messages.schemas import EmailRequest, ReplyRequest, SendRequest, SmsRequest
from shared.channels import Channel, Direction, MessageType
from shared.resources.messages import MessageResponse
from shared.validation import context_of, faults_of

_MODELS: dict[Channel, type[SendRequest]] = {Channel.SMS: SmsRequest, Channel.EMAIL: EmailRequest}


def as_send_request(reply: ReplyRequest, newest: MessageResponse, default_region: str) -> SendRequest:
    """Return the request to send a reply, from our address in the newest message to the other one.

    Raises:
        InvalidRequestError: the channel does not permit such a message.
    """
    channel = newest.type.channel
    is_ours = newest.direction is Direction.OUTBOUND
    ours, theirs = (newest.from_, newest.to) if is_ours else (newest.to, newest.from_)
    type_ = MessageType.SMS if channel is Channel.SMS else MessageType.EMAIL
    given: dict[str, Any] = reply.model_dump(mode="json", exclude_unset=True)
    try:
        return _MODELS[channel].model_validate(
            {**given, "from": ours, "to": theirs, "type": type_.value}, context=context_of(default_region)
        )
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequestError(*faults_of(errors)) from exc
