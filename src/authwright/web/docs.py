"""Swagger UI without the internet: assets from an installed package, under a strict content security policy."""

import asyncio
import json
import threading
from functools import cache
from importlib import resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from authwright.web.errors import OAuthError, Problem

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer", "x-frame-options": "DENY"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Authwright</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{assets}swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-document="{document}"></div>
<script src="{assets}swagger-ui-bundle.js"></script>
<script src="{assets}setup.js"></script>
</body>
</html>
"""
_SETUP = """window.ui = SwaggerUIBundle({
  url: new URL(document.getElementById("swagger-ui").dataset.document, document.baseURI).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  queryConfigEnabled: false,
  persistAuthorization: false,
  validatorUrl: null,
  syntaxHighlight: false,
});
"""
_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "setup.js": "text/javascript"}


# The order in which a newcomer needs them; the routes themselves stand in the order of their use.
_READ_FIRST = ("/register", "/login", "/me", "/refresh-token", "/logout")


@cache
def _asset(name: str) -> bytes:
    if name == "setup.js":
        return _SETUP.encode("utf-8")
    return (resources.files("fastapi_swagger") / "resources" / name).read_bytes()


def add_docs(app: FastAPI, *, description: str) -> None:
    """`/docs`, its assets, and `/openapi.json`."""
    making = threading.Lock()

    @cache
    def document() -> bytes:
        return json.dumps(openapi_document(app, description=description), ensure_ascii=False).encode("utf-8")

    def made_once() -> bytes:
        with making:
            return document()

    async def openapi(_request: Request) -> Response:
        # Made when somebody asks: it takes longer than all the rest of a start, and would hold up who asks meanwhile.
        return Response(await asyncio.to_thread(made_once), media_type="application/json")

    async def page(request: Request) -> Response:
        # Addresses are relative, so that they hold behind any prefix, for either spelling of the path.
        within = request.scope.get("raw_path", b"").endswith(b"/")
        text = _PAGE.format(assets="" if within else "docs/", document="../openapi.json" if within else "openapi.json")
        return Response(text, media_type="text/html", headers=_PAGE_HEADERS)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _TYPES:
            return Response(status_code=404)
        return Response(_asset(name), media_type=_TYPES[name], headers={"cache-control": "public, max-age=3600"})

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/{name}", asset, include_in_schema=False)


def openapi_document(app: FastAPI, *, description: str) -> dict[str, Any]:
    """The OpenAPI document of *app*."""
    document = get_openapi(title=app.title, version=app.version, description=description, routes=app.routes)
    paths = document["paths"]
    document["paths"] = {path: paths[path] for path in (*(path for path in _READ_FIRST if path in paths), *paths)}
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "Password": {
            "type": "oauth2",
            "description": "Log in with user name (or e-mail address) and password. Leave client_id empty.",
            "flows": {"password": {"tokenUrl": "token", "refreshUrl": "token", "scopes": {}}},
        },
        "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Paste an access token."},
    }
    schemas = components.setdefault("schemas", {})
    for model in (Problem, OAuthError):
        schemas[model.__name__] = model.model_json_schema()
    components["schemas"] = dict(sorted(schemas.items()))
    return document
