"""The kinds of problems, which the OpenAPI document, `docs/errors.md` and `/problems` list."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from shared.http_problems import problem_document

ProblemCode = Literal[
    "already_sent",
    "body_timeout",
    "body_too_large",
    "bus_unavailable",
    "conversation_not_found",
    "database_unavailable",
    "dead_letter_not_found",
    "dead_letter_resolved",
    "event_not_retained",
    "events_expired",
    "headers_too_large",
    "http_error",
    "incomplete_body",
    "internal_error",
    "invalid_request",
    "malformed_body",
    "malformed_request",
    "media_gone",
    "media_not_found",
    "media_not_stored",
    "media_store_unavailable",
    "message_not_found",
    "method_not_allowed",
    "not_cancelable",
    "not_found",
    "nothing_to_replay",
    "outcome_unknown",
    "overloaded",
    "payload_cut",
    "playground_unavailable",
    "range_not_satisfiable",
    "read_only_key",
    "recipient_opted_out",
    "signature_refused",
    "subscription_not_found",
    "too_many_streams",
    "too_many_webhook_endpoints",
    "unauthorized",
    "unsupported_content_type",
    "unsupported_upgrade",
    "webhook_attempt_not_found",
    "webhook_endpoint_changing",
    "webhook_endpoint_deleted",
    "webhook_endpoint_disabled",
    "webhook_endpoint_not_found",
    "webhook_endpoints_not_configured",
]
"""The kinds of problems. Clients rely on these codes, so they are never renamed."""


class ProblemKind(NamedTuple):
    """A kind of problem.

    Attributes:
        status: of the response.
        detail: an example of the detail in a response.
        cause: why it occurs.
        remedy: what the client should do.
    """

    status: int
    detail: str
    cause: str
    remedy: str


_RETRY = (
    "Repeat the request after `Retry-After` seconds, with the same `Idempotency-Key` if it creates something."
)
_CORRECT = "Correct the request; repeating it unchanged cannot succeed."

PROBLEM_KINDS: Mapping[ProblemCode, ProblemKind] = {
    "incomplete_body": ProblemKind(
        400,
        "The body is incomplete",
        "The client closed the connection before it had sent the whole body.",
        "Repeat the request.",
    ),
    "malformed_body": ProblemKind(
        400,
        "The body is not JSON: Expecting value: line 1 column 1 (char 0)",
        "The body is not JSON, not UTF-8, or nested too deeply.",
        _CORRECT,
    ),
    "malformed_request": ProblemKind(
        400, "Invalid HTTP request received.", "The request does not follow HTTP/1.1.", _CORRECT
    ),
    "unsupported_upgrade": ProblemKind(
        400,
        "The protocol cannot be changed",
        "The request asked to change to another protocol, such as WebSocket.",
        "Use HTTP/1.1.",
    ),
    "unauthorized": ProblemKind(
        401,
        "An API key is required: Authorization: Bearer …",
        "The API key, or the signature of a webhook, is missing or not valid.",
        "Send a valid API key as `Authorization: Bearer …`, or sign the webhook with the configured secret.",
    ),
    "read_only_key": ProblemKind(
        403,
        "The API key is read only",
        "The key is one of `READ_ONLY_API_KEYS`, and the request would change something.",
        "Use a key of `API_KEYS`.",
    ),
    "signature_refused": ProblemKind(
        403,
        "X-Twilio-Signature does not match the request",
        "The signature of a provider's webhook is missing or not valid.",
        "Check the secret or key of the provider in the settings, and `PUBLIC_BASE_URL`.",
    ),
    "conversation_not_found": ProblemKind(
        404,
        "Conversation not found",
        "No conversation has this id or key.",
        "Check the id. A conversation appears a moment after its first message was accepted.",
    ),
    "dead_letter_not_found": ProblemKind(
        404, "Dead letter not found", "No dead letter has this id.", "Check the id."
    ),
    "media_not_found": ProblemKind(404, "File not found", "No file has this id.", "Check the id."),
    "message_not_found": ProblemKind(
        404,
        "Message not found",
        "No message has this id, or it is not stored yet.",
        "Check the id. A message can be read a moment after it was accepted.",
    ),
    "not_found": ProblemKind(404, "Not Found", "The API has no such path.", "Check the path."),
    "subscription_not_found": ProblemKind(
        404,
        "The unsubscribe link is not valid",
        "The link was changed, or was signed with another secret.",
        "Use the link of the e-mail unchanged.",
    ),
    "webhook_attempt_not_found": ProblemKind(
        404, "Attempt not found", "The endpoint has no attempt with this id.", "Check the id."
    ),
    "webhook_endpoint_not_found": ProblemKind(
        404, "Webhook endpoint not found", "No webhook endpoint has this id.", "Check the id."
    ),
    "method_not_allowed": ProblemKind(
        405,
        "Method Not Allowed",
        "The path exists, but not with this method.",
        "Use one of the methods in the header `Allow`.",
    ),
    "already_sent": ProblemKind(
        409,
        "The message was sent after all; discard the dead letter",
        "The provider reported after the failure that it had sent the message.",
        "Discard the dead letter.",
    ),
    "dead_letter_resolved": ProblemKind(
        409,
        "The dead letter was already replayed",
        "The dead letter has already been replayed or discarded.",
        "Nothing needs to be done.",
    ),
    "media_not_stored": ProblemKind(
        409,
        "The file is not stored yet",
        "The file is still being fetched, or could not be fetched.",
        "Get the message: the `status` of the file says whether to try again.",
    ),
    "event_not_retained": ProblemKind(
        409,
        "The event is no longer stored, or was a test",
        "Events are stored for seven days, and those of tests are not stored.",
        "Use the lists, such as `GET /api/messages`, to read what was missed.",
    ),
    "not_cancelable": ProblemKind(
        409,
        "The message is being sent",
        "The message is being sent, or has a final status.",
        "Get the message to see its status.",
    ),
    "nothing_to_replay": ProblemKind(
        409,
        "There is no payload to replay",
        "The dead letter contains nothing that could be processed again.",
        "Discard the dead letter.",
    ),
    "outcome_unknown": ProblemKind(
        409,
        "The record of this message's delivery cannot be read, so it may have been sent",
        "The message, or the first request with this `Idempotency-Key`, may have taken effect, but "
        "this cannot be determined.",
        "Look for the message before you send it with another key.",
    ),
    "payload_cut": ProblemKind(
        409,
        "The webhook is too large to be kept in the dead letter",
        "The dead letter contains only the beginning of the payload.",
        "Replay the stream, or ask the provider to repeat the webhook, and discard the dead letter.",
    ),
    "recipient_opted_out": ProblemKind(
        409,
        "The recipient opted out of messages from +12016661234 on 2026-01-02T03:04:05+00:00 (inbound)",
        "A recipient has opted out of messages from this sender.",
        "Do not send the message. `GET /api/suppressions` has the details.",
    ),
    "too_many_webhook_endpoints": ProblemKind(
        409,
        "There are already 1000 endpoints",
        "The service already has as many webhook endpoints as it can manage.",
        "Delete those that are no longer needed.",
    ),
    "webhook_endpoint_changing": ProblemKind(
        409,
        "Other requests are changing the webhook endpoint",
        "Several requests changed the webhook endpoint at the same time.",
        "Repeat the request.",
    ),
    "webhook_endpoint_deleted": ProblemKind(
        409,
        "The webhook endpoint that was created with this Idempotency-Key was deleted",
        "The webhook endpoint that an earlier request with this `Idempotency-Key` created was deleted.",
        "Use another `Idempotency-Key` to create another endpoint.",
    ),
    "webhook_endpoint_disabled": ProblemKind(
        409,
        "The webhook endpoint is disabled",
        "The webhook endpoint was disabled, by a request or because it failed for days.",
        "Enable it, and repeat the request.",
    ),
    "webhook_endpoints_not_configured": ProblemKind(
        409,
        "The service has no WEBHOOK_ENDPOINT_KEY, with which it could store secrets",
        "The service has no key with which it could encrypt the secrets of webhook endpoints.",
        "Set `WEBHOOK_ENDPOINT_KEY` for the gateways and the notifiers.",
    ),
    "media_gone": ProblemKind(
        410,
        "The file was deleted from the store",
        "The file was stored, but the store no longer has it.",
        "Nothing can be done, unless a backup of the store has the file.",
    ),
    "events_expired": ProblemKind(
        410,
        "Events after 4711 are no longer stored. The oldest event is the one after 5000",
        "Events are stored for seven days, and this position is older, or later than the newest event.",
        "Use the lists to read what was missed, and continue without `after`.",
    ),
    "body_too_large": ProblemKind(
        413,
        "The body is larger than 262144 bytes",
        "The body is larger than the limit of its path.",
        "Send less; pass files as URLs in `attachments`.",
    ),
    "unsupported_content_type": ProblemKind(
        415,
        "The content type must be application/json",
        "The `Content-Type` is missing, or is not accepted at this path.",
        _CORRECT,
    ),
    "range_not_satisfiable": ProblemKind(
        416,
        "The range begins beyond the end of the file",
        "The `Range` of the request begins beyond the end of the file.",
        "Request the file without a `Range`.",
    ),
    "invalid_request": ProblemKind(
        422,
        "The request is not valid",
        "Fields, query parameters or headers are invalid or unknown; `errors` names each of them.",
        _CORRECT,
    ),
    "too_many_streams": ProblemKind(
        429,
        "A caller can have 20 open streams at a gateway; close some of them",
        "The API key already has the maximum number of open event streams.",
        "Close the streams that are no longer read.",
    ),
    "headers_too_large": ProblemKind(
        431, "The headers are larger than 65536 bytes", "The headers are too large.", _CORRECT
    ),
    "http_error": ProblemKind(
        400,
        "Bad Request",
        "The request failed for a reason that has no code of its own; `status` is that of the response.",
        _CORRECT,
    ),
    "internal_error": ProblemKind(
        500,
        "An unexpected error occurred",
        "The gateway failed unexpectedly; its log has the details.",
        "Report the `request_id`. The request may have taken effect.",
    ),
    "body_timeout": ProblemKind(
        503,
        "The body did not arrive in time",
        "The body arrived too slowly.",
        _RETRY,
    ),
    "bus_unavailable": ProblemKind(
        503,
        "NATS does not answer. The request may still have been accepted. "
        "Retry it with the same Idempotency-Key to avoid a duplicate.",
        "NATS does not answer, so it is unknown whether the request was accepted.",
        _RETRY,
    ),
    "database_unavailable": ProblemKind(
        503,
        "The database cannot be read at the moment",
        "PostgreSQL does not answer. Messages are still accepted and delivered.",
        _RETRY,
    ),
    "media_store_unavailable": ProblemKind(
        503, "The store of media does not answer at the moment", "The store of media does not answer.", _RETRY
    ),
    "playground_unavailable": ProblemKind(
        503,
        "The mock provider does not answer",
        "No mock provider of the channel is configured, or it does not answer.",
        "Start it, for example with `make run`.",
    ),
    "overloaded": ProblemKind(
        503,
        "Too many requests are in progress. Nothing was accepted; try again later.",
        "The gateway is already handling as many requests as it can.",
        _RETRY,
    ),
}

_GENERAL: Mapping[int, tuple[ProblemCode, ...]] = {
    400: ("malformed_body", "incomplete_body"),
    401: ("unauthorized",),
    403: ("signature_refused",),
    404: ("not_found",),
    413: ("body_too_large",),
    415: ("unsupported_content_type",),
    422: ("invalid_request",),
    503: ("overloaded", "body_timeout", "bus_unavailable", "database_unavailable"),
}
"""The kinds that do not depend on the subject, by status."""


def kinds_of(*given: int | ProblemCode) -> Mapping[int, list[ProblemCode]]:
    """Return the codes of problems by status.

    Args:
        given: codes, and statuses that stand for the kinds of problems any operation may have.
    """
    codes: dict[int, list[ProblemCode]] = {}
    for each in given:
        if isinstance(each, int):
            codes.setdefault(each, []).extend(_GENERAL[each])
        else:
            codes.setdefault(PROBLEM_KINDS[each].status, []).append(each)
    return codes


def example_of(code: ProblemCode, detail: str | None = None) -> dict[str, Any]:
    """Return an example of a problem document, with the detail of its kind or another one."""
    kind = PROBLEM_KINDS[code]
    is_invalid = code == "invalid_request"
    errors = [{"field": "to", "detail": "is not a valid phone number"}] if is_invalid else []
    return problem_document(
        kind.status, code, detail or kind.detail, "0199b1f0c2d47a3e8f51d6a7c3b2e940", errors
    )
