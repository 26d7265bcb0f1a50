"""The web port's routes, and what holds for every answer: who may read, from which names, with which headers.

Invariant: no answer is without the headers of SECURITY_HEADERS; nothing but health, the login and the page's own
files is shown to who may not read; a bug is logged once and shown as 500 without its text.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.errors import InvalidArgument, NotFound, Overloaded, RaftberryError
from appliance.web.health import healthz, readyz
from appliance.web.live import get_cluster, get_live
from appliance.web.metrics import exposition
from appliance.web.port import Access, Facts, Node, Observing
from appliance.web.series import Names, Turns, get_chart, list_series
from appliance.web.session import (
    Sessions,
    delete_session,
    get_session,
    is_own_host,
    is_same_origin,
    post_session,
)
from appliance.web.static_files import load_static, serve_static

log = logging.getLogger(__name__)

SECURITY_HEADERS: Final = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}

URL_BYTES_MAX: Final = 4_096


def make_app(
    node: Node, observing: Observing, facts: Facts, access: Access, *, is_any_host_allowed: bool = False
) -> ASGIApp:
    """is_any_host_allowed: the port is reached by names of the internet, which --insecure says is meant."""
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", _metrics),
            Route("/api/v1/session", get_session, methods=["GET"]),
            Route("/api/v1/session", post_session, methods=["POST"]),
            Route("/api/v1/session", delete_session, methods=["DELETE"]),
            Route("/api/v1/cluster", get_cluster),
            Route("/api/v1/live", get_live),
            Route("/api/v1/series", list_series),
            Route("/api/v1/chart", get_chart),
            Route("/", serve_static),
            Route("/{path:path}", serve_static),
        ],
        exception_handlers={HTTPException: _http_error, RaftberryError: _our_error, Exception: _our_error},
    )
    app.state.node, app.state.observing, app.state.facts = node, observing, facts
    app.state.sessions, app.state.names = Sessions(access), Names(node)
    app.state.charts, app.state.static = Turns(), load_static()
    return _Gate(app, app.state.sessions, is_any_host_allowed=is_any_host_allowed)


async def _metrics(request: Request) -> Response:
    state = request.app.state
    body, content_type = exposition(state.node, state.facts, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)


async def _our_error(request: Request, error: Exception) -> Response:
    return error_response(error)


class _Gate:
    """Around all routes: refuses, adds the headers, turns our errors into answers."""

    def __init__(self, app: ASGIApp, sessions: Sessions, *, is_any_host_allowed: bool) -> None:
        self._app, self._sessions = app, sessions
        self._is_any_host_allowed = is_any_host_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message["headers"], *SECURITY_HEADERS.items()]
            await send(message)

        # The app is known to a handler by its request only.
        request = Request(scope)
        try:
            answer = self._refusal(request)
            await (answer or self._app)(scope, receive, send_guarded)
        except Exception as error:
            if not isinstance(error, RaftberryError):
                log.error("web request failed path=%s error=%r", scope["path"][:100], error, exc_info=error)
            if not has_begun:
                await error_response(error)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        path = request.url.path
        if len(request.scope.get("raw_path", b"")) + len(request.scope["query_string"]) > URL_BYTES_MAX:
            return PlainTextResponse(f"a URL has at most {URL_BYTES_MAX} bytes here\n", 414)
        if path in ("/healthz", "/readyz"):
            return None
        host = request.headers.get("host", "")
        if not self._sessions.is_required and not self._is_any_host_allowed and not is_own_host(host):
            return PlainTextResponse(
                "this node has no tokens, and answers only to an address, a bare name or a local domain; ask for it "
                "by one of these\n",
                421,
            )
        if request.method not in ("GET", "HEAD") and not is_same_origin(request):
            return PlainTextResponse("requests of other sites are not taken\n", 403)
        is_open = path == "/api/v1/session" or not path.startswith(("/api/", "/metrics"))
        if is_open or self._sessions.allows(request):
            return None
        text = "a token is needed: log in, or send `Authorization: Bearer TOKEN`"
        return JSONResponse({"error": text}, 401, {"www-authenticate": 'Bearer realm="raftberry"'})


def error_response(error: Exception) -> Response:
    """Ours in words, a bug without."""
    if not isinstance(error, RaftberryError):
        return JSONResponse({"error": "this node has a bug here; its journal says more"}, 500)
    status = 503
    if isinstance(error, InvalidArgument):
        status = 400
    elif isinstance(error, NotFound):
        status = 404
    elif isinstance(error, Overloaded):
        status = 429
    return JSONResponse({"error": error.message}, status)
