"""Who may read, by token, cookie, host and origin; and the headers that every answer has."""

from __future__ import annotations

import pytest

from appliance.web import session
from tests.web.fakes import FakeNode, TokenAccess, client

SECRETS = [
    "/metrics",
    "/api/v1/cluster",
    "/api/v1/live",
    "/api/v1/series",
    "/api/v1/chart",
    "/api/v1/nothing",
]


@pytest.mark.parametrize("path", SECRETS)
async def test_nothing_but_health_login_and_the_page_is_shown_without_a_token(path: str) -> None:
    async with client(access=TokenAccess()) as http:
        answer = await http.get(path)
        assert (await http.get("/")).status_code == 200
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="raftberry"'


async def test_a_token_with_the_request_is_enough_as_prometheus_sends_it() -> None:
    async with client(access=TokenAccess()) as http:
        answer = await http.get("/metrics", headers={"authorization": "Bearer secret-2"})
    assert answer.status_code == 200


async def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_can_use() -> None:
    async with client(access=TokenAccess()) as http:
        answer = await http.post("/api/v1/session", json={"token": "secret-1"})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "secret-1" not in cookie
        assert (await http.get("/api/v1/cluster")).status_code == 200
        assert (await http.get("/api/v1/session")).json() == {"required": True, "name": "anna"}


async def test_over_tls_the_cookie_is_secure() -> None:
    async with client(access=TokenAccess(), base_url="https://127.0.0.1:7442") as http:
        answer = await http.post("/api/v1/session", json={"token": "secret-1"})
    assert "Secure" in answer.headers["set-cookie"]


async def test_a_revoked_token_ends_its_sessions_at_once() -> None:
    access = TokenAccess()
    async with client(access=access) as http:
        await http.post("/api/v1/session", json={"token": "secret-1"})
        del access.tokens["secret-1"]
        assert (await http.get("/api/v1/cluster")).status_code == 401


async def test_a_token_that_used_up_its_rate_is_told_so_and_stays_logged_in() -> None:
    access = TokenAccess()
    async with client(access=access) as http:
        await http.post("/api/v1/session", json={"token": "secret-1"})
        access.requests_left = 0
        answer = await http.get("/api/v1/cluster")
        assert (answer.status_code, answer.json()["error"]) == (429, "token has used up its rate")
        access.requests_left = 10
        assert (await http.get("/api/v1/cluster")).status_code == 200


async def test_a_refused_login_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WRONG_TOKEN_PAUSE_S", 0.0)
    async with client(access=TokenAccess()) as http:
        answer = await http.post("/api/v1/session", json={"token": "wrong"})
    assert answer.json() == {"error": "this token is not known here"}


async def test_a_logout_ends_the_session_on_the_node_too() -> None:
    async with client(access=TokenAccess()) as http:
        await http.post("/api/v1/session", json={"token": "secret-1"})
        cookie = http.cookies[session.COOKIE]
        await http.delete("/api/v1/session")
        http.cookies.set(session.COOKIE, cookie)
        assert (await http.get("/api/v1/cluster")).status_code == 401


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"token": 5}', b'{"token": "wrong"}', b"\xff"])
async def test_a_wrong_token_is_refused(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WRONG_TOKEN_PAUSE_S", 0.0)
    async with client(access=TokenAccess()) as http:
        answer = await http.post("/api/v1/session", content=body)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_a_login_with_a_large_body_is_refused_before_it_is_read() -> None:
    async with client(access=TokenAccess()) as http:
        answer = await http.post("/api/v1/session", content=b"x" * (session.BODY_BYTES_MAX + 1))
    assert answer.status_code == 413


async def test_sessions_are_bounded() -> None:
    sessions = session.Sessions(TokenAccess())
    cookies = [sessions.open("secret-1") for _ in range(session.SESSIONS_MAX + 5)]
    assert len(sessions._sessions) == session.SESSIONS_MAX
    assert cookies[-1] in sessions._sessions


async def test_another_sites_post_is_refused() -> None:
    async with client(access=TokenAccess()) as http:
        answer = await http.post(
            "/api/v1/session", json={"token": "secret-1"}, headers={"origin": "https://evil.example"}
        )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7442", "[::1]:7442", "192.168.1.7:7442", "localhost:7442", "pi-1.local:7442", "pi-1:7442"],
)
def test_names_of_this_network_are_answered(host: str) -> None:
    assert session.is_own_host(host)


@pytest.mark.parametrize("host", ["evil.example:7442", "1.2.3.4.evil.example", "", "local.evil.example"])
def test_names_of_the_internet_are_not_answered_without_tokens(host: str) -> None:
    assert not session.is_own_host(host)


async def test_a_rebound_name_cannot_read_a_node_without_tokens() -> None:
    async with client(base_url="http://evil.example:7442") as http:
        answer = await http.get("/api/v1/cluster")
    assert answer.status_code == 421
    assert "answers only to an address, a bare name or a local domain" in answer.text


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nothing", "/api/v1/chart"])
async def test_every_answer_forbids_inline_script_and_frames(path: str) -> None:
    async with client() as http:
        headers = (await http.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_bug_is_an_answer_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with client(FakeNode(error=ZeroDivisionError("secret of the code"))) as http:
        answer = await http.get("/api/v1/cluster")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "web request failed path=/api/v1/cluster" in caplog.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_long_url_is_refused() -> None:
    async with client() as http:
        assert (await http.get("/api/v1/series", params={"q": "x" * 5_000})).status_code == 414


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/static/../../app.py", "/vendor/", "//etc/passwd"]
)
async def test_only_the_pages_own_files_are_served(path: str) -> None:
    async with client() as http:
        assert (await http.get(path)).status_code == 404
