"""The FastAPI application: /docs and /openapi.json, made from the table of routes and the shapes of the answers.

Its routes answer as procs.gateway.front does, by the same Answers; in the gateway the front is asked first. Imported by the
gateway's own process alone: it needs the packages of the extra `web`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from procs.gateway.answers import DEFAULT_TIMEFRAME, OK, ROUTES, Answers, Route
from procs.gateway.market_view import TIMEFRAMES
from procs.gateway.shapes import ErrorAnswer

TITLE = "scalper gateway"
REFERENCE = "#/components/schemas/{name}"
MEANINGS = {404: "No such symbol in this run", 422: "No such timeframe", 503: "Too old, not there yet, or the pipeline is down"}


def _version() -> str:
    try:
        return version("scalper")
    except PackageNotFoundError:
        return "0"


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(name=name)}}}


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    own = route.answer.__name__
    found: dict[int | str, dict[str, Any]] = {OK: {"description": "The answer", "content": _content(own)}}
    for status in route.statuses:
        name = own if route.prefix == "/healthz" else ErrorAnswer.__name__
        found[status] = {"description": MEANINGS[status], "content": _content(name)}
    return found


def _parameters(route: Route, symbols: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if route.takes_symbol:
        found.append({"name": "symbol", "in": "path", "required": True, "schema": {"type": "string", "enum": symbols}})
    if route.takes_tf:
        schema = {"type": "string", "enum": list(TIMEFRAMES), "default": DEFAULT_TIMEFRAME}
        found.append({"name": "tf", "in": "query", "required": False, "schema": schema})
    return found


class Described(FastAPI):
    """FastAPI whose document has the answers' shapes in it: the endpoints give bytes, so it cannot see them itself."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            schema = get_openapi(title=self.title, version=self.version, routes=self.routes)
            shapes = [*(route.answer for route in ROUTES), ErrorAnswer]
            components = msgspec.json.schema_components(shapes, ref_template=REFERENCE)[1]
            schema.setdefault("components", {}).setdefault("schemas", {}).update(components)
            self.openapi_schema = schema
        return self.openapi_schema


def described(answers: Answers) -> Any:
    """The application."""
    app = Described(title=TITLE, version=_version(), docs_url="/docs", redoc_url=None, openapi_url="/openapi.json")

    def endpoint_of(route: Route) -> Any:
        async def endpoint(request: Request) -> Response:
            symbol = str(request.path_params.get("symbol", ""))
            status, body = answers.reply(route, symbol, request.query_params.get("tf", DEFAULT_TIMEFRAME))
            return Response(body, status, media_type="application/json")

        return endpoint

    for route in ROUTES:
        app.add_api_route(
            route.path,
            endpoint_of(route),
            methods=["GET"],
            name=route.prefix.strip("/"),
            summary=route.summary,
            responses=_responses(route),
            response_class=Response,
            openapi_extra={"parameters": _parameters(route, list(answers.view.names))},
        )
    return app
