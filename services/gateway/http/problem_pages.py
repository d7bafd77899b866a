"""The pages to which the `type` of a problem refers."""

import re
from collections.abc import Iterable
from html import escape
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from services.gateway.http.problem_kinds import PROBLEM_KINDS, ProblemCode, ProblemKind

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{}</title>
<h1>{}</h1>
{}
</html>
"""
_PROBLEM = "<h2><code>{code}</code> ({status} {phrase})</h2>\n<p>{cause}</p>\n<p>{remedy}</p>"
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


def problem_router() -> APIRouter:
    """Create the routes of `/problems`, which lists all kinds of problems, and of one page for each."""
    router = APIRouter(prefix="/problems", include_in_schema=False)

    @router.get("")
    async def list_problems() -> HTMLResponse:
        return _page("Problems", PROBLEM_KINDS.items())

    @router.get("/{code}")
    async def show_problem(code: str) -> HTMLResponse:
        found = [(name, kind) for name, kind in PROBLEM_KINDS.items() if name == code]
        if not found:
            raise HTTPException(404)
        return _page(code, found)

    return router


def _page(title: str, kinds: Iterable[tuple[ProblemCode, ProblemKind]]) -> HTMLResponse:
    sections = [
        _PROBLEM.format(
            code=code,
            status=kind.status,
            phrase=HTTPStatus(kind.status).phrase,
            cause=_html(kind.cause),
            remedy=_html(kind.remedy),
        )
        for code, kind in kinds
    ]
    return HTMLResponse(_PAGE.format(title, title, "\n".join(sections)), headers=_HEADERS)


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
