"""The pages behind the unsubscribe links in e-mails (RFC 8058). Anybody who has a link can use it."""

from html import escape
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from services.gateway.dependencies import Clock, SuppressionListDep
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import NotFoundError, problems
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
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


def unsubscribe_router(secret: str) -> APIRouter:
    """Create the routes for links that are signed with `secret`."""
    router = APIRouter(prefix="/unsubscribe", tags=["unsubscribe"], default_response_class=HTMLResponse)

    @router.get("/{token}", summary="Show the unsubscribe page", responses=problems("subscription_not_found"))
    async def show_unsubscribe_page(token: str) -> HTMLResponse:
        """Show a page with a button. This changes nothing yet, since malware scanners open links too."""
        subscription = _verified(token, secret)
        theirs, ours = escape(subscription.theirs), escape(subscription.ours)
        return _page(f"Unsubscribe {theirs} from messages sent by {ours}?", _BUTTON)

    @router.post("/{token}", summary="Unsubscribe", responses=problems("subscription_not_found", 503))
    async def unsubscribe(token: str, suppressions: SuppressionListDep, clock: Clock) -> HTMLResponse:
        """Unsubscribe the recipient. Doing so again changes nothing."""
        subscription = _verified(token, secret)
        change = SuppressionChange(
            channel=subscription.channel,
            ours=subscription.ours,
            theirs=subscription.theirs,
            state=SuppressionState.OPTED_OUT,
            source=SuppressionSource.UNSUBSCRIBE,
            detail="unsubscribe link in an e-mail",
            occurred_at=clock(),
        )
        async with deadline():
            await suppressions.record(change, only_if_changed=True)
        theirs, ours = escape(subscription.theirs), escape(subscription.ours)
        return _page(f"{theirs} is unsubscribed from messages sent by {ours}.")

    return router


def _verified(token: str, secret: str) -> Subscription:
    subscription = Subscription.verify(token, secret)
    if subscription is None:
        raise NotFoundError("subscription_not_found", "The unsubscribe link is not valid")
    return subscription


def _page(text: str, button: str = "") -> HTMLResponse:
    return HTMLResponse(_PAGE.format(text, button), headers=_HEADERS)
