"""Where the links lead that mails carry in `List-Unsubscribe` (RFC 8058): whoever has one may follow it."""

from html import escape
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from services.gateway.http.errors import NotFoundError
from services.gateway.openapi import problems
from services.gateway.state import state_of
from shared.events import SuppressionChange, SuppressionSource, SuppressionState
from shared.unsubscribe import Subscription

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Unsubscribe</title>
<p>{}</p>
{}
</html>
"""
_BUTTON = '<form method="post"><button name="List-Unsubscribe" value="One-Click">Unsubscribe</button></form>'
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


def router(secret: str) -> APIRouter:
    """Make the routes for links that were signed with `secret`."""
    router = APIRouter(prefix="/unsubscribe", tags=["unsubscribing"], default_response_class=HTMLResponse)

    @router.get("/{token}", summary="Ask whether to unsubscribe", responses=problems(404))
    async def ask(token: str) -> Response:
        """Nothing is changed by this: programs that look for malice open links, too."""
        subscription = _verified(token, secret)
        theirs, ours = escape(subscription.theirs), escape(subscription.ours)
        return _page(f"Shall {theirs} get no more messages from {ours}?", _BUTTON)

    @router.post("/{token}", summary="Unsubscribe", responses=problems(404, 503))
    async def unsubscribe(request: Request, token: str) -> Response:
        """Done again, it is the same."""
        subscription, state = _verified(token, secret), state_of(request)
        change = SuppressionChange(
            channel=subscription.channel,
            ours=subscription.ours,
            theirs=subscription.theirs,
            state=SuppressionState.OPTED_OUT,
            source=SuppressionSource.UNSUBSCRIBE,
            detail="by the link in a mail",
            occurred_at=state.clock(),
        )
        await state.suppressions.record(change, unless_so=True)
        return _page(f"{escape(subscription.theirs)} gets no more messages from {escape(subscription.ours)}.")

    return router


def _verified(token: str, secret: str) -> Subscription:
    subscription = Subscription.verify(token, secret)
    if subscription is None:
        raise NotFoundError("subscription")
    return subscription


def _page(text: str, button: str = "") -> Response:
    return HTMLResponse(_PAGE.format(text, button), headers=_HEADERS)
