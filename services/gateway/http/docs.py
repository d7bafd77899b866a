"""The API documentation at `/docs`: Swagger UI, served from the package so that it works offline."""

from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_STATIC = Path(__file__).with_name("static")

# The links are relative, so that the page also works behind a proxy that adds a path prefix.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="docs/static/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="docs/static/swagger-ui/swagger-ui.css">
<link rel="stylesheet" href="docs/static/docs.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>
This page needs JavaScript. The <a href="openapi.json">OpenAPI document</a> can be read without it.
</noscript>
<script src="docs/static/swagger-ui/swagger-ui-bundle.js"></script>
<script src="docs/static/docs.js"></script>
</body>
</html>
"""

_HEADERS = {
    # The style sheet contains its icons as `data:` URLs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def mount_docs(app: FastAPI) -> None:
    """Add `/docs`, which shows the OpenAPI document at `/openapi.json`, and the files that the page needs.

    The app must be created with `docs_url=None` and `redoc_url=None`, because FastAPI's own pages load their
    scripts from another host.
    """
    page = _PAGE.format(title=escape(app.title))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    app.mount("/docs/static", StaticFiles(directory=_STATIC))
