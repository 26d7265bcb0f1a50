"""Who looks: a token once, then a cookie; or a token with each request, as Prometheus does.

Invariant: a token is in no URL, no log and no page; the cookie is a random number that means something to this node
only, until it restarts. The token behind it is asked for at every request, so that a revoked one ends at once.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.errors import PermissionDenied, Unauthenticated
from appliance.web.port import Access

COOKIE: Final = "raftberry_session"
SESSIONS_MAX: Final = 256
"""The one that was silent longest is forgotten."""

SESSION_S: Final = 12 * 3600
BODY_BYTES_MAX: Final = 4 * 1024
WRONG_TOKEN_PAUSE_S: Final = 1.0

_PRIVATE_SUFFIXES: Final = (".local", ".lan", ".home", ".internal", ".home.arpa", ".localhost")


@dataclass(frozen=True, slots=True)
class Session:
    token: str
    ends_s: float


class Sessions:
    """Sessions of this node, in memory."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    @property
    def is_required(self) -> bool:
        return self._access.is_required

    def open(self, token: str) -> str:
        """The cookie for a token that may read. Raises Unauthenticated and PermissionDenied, and RateLimited."""
        self._access.reader(token)
        while len(self._sessions) >= SESSIONS_MAX:
            self._sessions.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = Session(token, time.monotonic() + SESSION_S)
        return cookie

    def close(self, cookie: str) -> None:
        self._sessions.pop(cookie, None)

    def reader(self, request: Request) -> str | None:
        """Who asks, by Authorization or by cookie; None: nobody that may read. Raises RateLimited."""
        token = self._token(request)
        if not token:
            return None
        try:
            return self._access.reader(token)
        except (Unauthenticated, PermissionDenied):
            self.close(request.cookies.get(COOKIE, ""))
            return None

    def _token(self, request: Request) -> str:
        """The token behind a request; empty: there is none."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        cookie = request.cookies.get(COOKIE, "")
        session = self._sessions.get(cookie)
        if session is None:
            return ""
        if session.ends_s <= time.monotonic():
            self.close(cookie)
            return ""
        self._sessions.move_to_end(cookie)
        return session.token

    def allows(self, request: Request) -> bool:
        """Counts as one request of the token. Raises RateLimited."""
        return not self.is_required or self.reader(request) is not None

    def still_allows(self, request: Request) -> bool:
        """For an answer that goes on: counts as no request."""
        return not self.is_required or self._access.is_reader(self._token(request))


def is_own_host(host: str) -> bool:
    """Whether a Host header can only mean a machine of this network: an address, a bare name, a local domain.

    Without tokens a page of the internet could otherwise have its own name point here and read (DNS rebinding).
    """
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(_PRIVATE_SUFFIXES))
    return True


def is_same_origin(request: Request) -> bool:
    """What changes something comes from our own page; a browser says where from."""
    origin = request.headers.get("origin")
    return origin is None or hmac.compare_digest(urlsplit(origin).netloc, request.headers.get("host", ""))


async def get_session(request: Request) -> Response:
    sessions: Sessions = request.app.state.sessions
    return JSONResponse(
        {"required": sessions.is_required, "name": sessions.reader(request) if sessions.is_required else None}
    )


async def post_session(request: Request) -> Response:
    """{"token": ...}; the answer sets the cookie."""
    sessions: Sessions = request.app.state.sessions
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return JSONResponse({"error": f"the body has more than {BODY_BYTES_MAX} bytes"}, 413)
    try:
        cookie = sessions.open(_token_of(body))
    except (Unauthenticated, PermissionDenied) as error:
        await asyncio.sleep(WRONG_TOKEN_PAUSE_S)
        return JSONResponse({"error": error.message}, 401)
    response = JSONResponse({"required": sessions.is_required})
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


async def delete_session(request: Request) -> Response:
    sessions: Sessions = request.app.state.sessions
    sessions.close(request.cookies.get(COOKIE, ""))
    response = JSONResponse({"required": sessions.is_required})
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def _token_of(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    token = found.get("token") if isinstance(found, dict) else None
    return token.strip() if isinstance(token, str) else ""
