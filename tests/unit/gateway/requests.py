"""Valid requests, and the parts of problem documents."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import httpx

from services.gateway.http.problem_kinds import ProblemCode
from tests.webhooks import GENERIC_EMAIL, GENERIC_EMAIL_STATUS, GENERIC_SMS, GENERIC_SMS_STATUS, JSON

SEND_SMS = "/api/messages/sms"
SEND_EMAIL = "/api/messages/email"
REPLAY_ALL = "/api/dead-letters/replay"
DISCARD_ALL = "/api/dead-letters/discard"

SMS = {
    "from": "+12016661234",
    "to": "+18045551234",
    "type": "sms",
    "body": "text message",
    "attachments": None,
    "timestamp": "2024-11-01T14:00:00Z",
}
EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "body": "text message with or without html",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}

SENDS: Mapping[str, Mapping[str, Any]] = {SEND_SMS: SMS, SEND_EMAIL: EMAIL}
WEBHOOKS: Mapping[str, Mapping[str, Any]] = {
    GENERIC_SMS: {**SMS, "messaging_provider_id": "message-1"},
    GENERIC_EMAIL: {**EMAIL, "xillio_id": "message-2"},
    GENERIC_SMS_STATUS: {"messaging_provider_id": "message-1", "status": "delivered"},
    GENERIC_EMAIL_STATUS: {"xillio_id": "message-2", "status": "delivered"},
}
RESOLUTIONS: Mapping[str, Mapping[str, Any]] = {
    REPLAY_ALL: {"all": True},
    DISCARD_ALL: {"all": True, "reason": "a test"},
}
BODIES = {**SENDS, **WEBHOOKS, **RESOLUTIONS}
"""Valid bodies for all paths without parameters that accept JSON, except SendGrid's."""

MISSING = object()


def changed(payload: Mapping[str, Any], field: str, value: object) -> dict[str, Any]:
    """Return a payload with a different value of a field, such as `attachments.0`, or without the field."""
    name = field.partition(".")[0]
    return {key: old for key, old in {**payload, name: value}.items() if old is not MISSING}


async def post_json(client: httpx.AsyncClient, path: str, payload: object) -> httpx.Response:
    # Unlike httpx, json.dumps writes a lone surrogate as an escape, as clients do.
    return await client.post(path, content=json.dumps(payload).encode(), headers=JSON)


def problem_of(response: httpx.Response) -> str:
    """Return the code of the problem that a response documents."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
    assert problem["status"] == response.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["request_id"] == response.headers.get("x-request-id", problem["request_id"])
    assert problem["title"] == response.reason_phrase
    assert problem["detail"]
    assert problem["code"] in get_args(ProblemCode)
    return str(problem["code"])


def faults_of(response: httpx.Response) -> set[str]:
    """Return the fields at fault."""
    problem_of(response)
    return {error["field"] for error in response.json()["errors"]}
