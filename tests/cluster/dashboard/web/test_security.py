"""Who may ask: Host, Origin, method, token; and what every answer says to the browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard.web.security import Access, access_for, host_name, is_loopback
from tests.cluster.dashboard.served import Served, serving
from tests.cluster.dashboard.small_runs import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    write_run(path / "one", num_steps=1)
    return path


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving([folder], access_for("127.0.0.1", ["Node7.cluster"])) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[tuple[Served, Access]]:
    access = access_for("0.0.0.0")
    with serving([folder], access) as server:
        yield server, access


TARGETS = ("/", "/api/runs", "/api/runs/one/rollouts", "/api/stream", "/static/app.js", "/nothing")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "10.0.0.1",
        "a@localhost",
        "localhost:x",
        "localhost/",
        "[::1",
        "127.0.0.1, evil.example",
        "0x7f.1",
    ],
)
def test_a_foreign_host_is_refused(served: Served, target: str, host: str) -> None:
    reply = served.ask(target, Host=host)
    assert reply.status == 421
    assert reply.json()["error"].startswith("the Host ")
    assert "text/html" not in reply.headers["content-type"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1", "[::1]:7533", "node7.cluster:7533"])
def test_own_names_are_allowed_with_any_port(served: Served, host: str) -> None:
    assert served.ask("/api/runs", Host=host).status == 200


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "file://", "", "http://127.0.0.1"]
)
def test_a_foreign_origin_is_refused(served: Served, target: str, origin: str) -> None:
    reply = served.ask(target, Origin=origin)
    assert reply.status == 403
    assert reply.json() == {"error": f"the Origin {origin!r} is not this dashboard's own"}


def test_own_origin_and_navigation_are_allowed_and_a_foreign_page_may_not_embed(served: Served) -> None:
    assert served.ask("/api/runs", Origin=f"http://127.0.0.1:{served.port}").status == 200
    assert served.ask("/api/runs", Host="localhost:9000", Origin="http://localhost:9000").status == 200
    assert served.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    for site in ("cross-site", "same-site"):
        reply = served.ask("/api/runs", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
        assert (reply.status, reply.json()) == (403, {"error": "this request comes from a page of another site"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_nothing_but_reading_is_allowed(served: Served, method: str) -> None:
    for target in TARGETS:
        reply = served.ask(target, method=method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        assert reply.json()["error"] == f"the method {method!r} is not allowed: a dashboard is only read, with GET"


def test_head_has_no_body(served: Served) -> None:
    assert [served.ask(target, method="HEAD").body for target in ("/", "/api/runs", "/static/app.js")] == [b""] * 3


@pytest.mark.parametrize("target", [*TARGETS[:3], "/static/app.js", "/nothing", "/api/runs/nothing"])
def test_every_answer_has_the_headers(served: Served, target: str) -> None:
    headers = served.ask(target).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


def test_beyond_loopback_everything_needs_the_token(guarded: tuple[Served, Access]) -> None:
    served, access = guarded
    assert access.token is not None
    for target in (*TARGETS, "/?token=", "/?token=wrong", f"/api/runs?token={access.token}"):
        reply = served.ask(target)
        assert reply.status == 401, target
        assert "set-cookie" not in reply.headers
    for header in ("Bearer wrong", f"Basic {access.token}", "Bearer", f"Bearer {access.token}x", "Bearer \xe9"):
        assert served.ask("/api/runs", Authorization=header).status == 401
    assert served.ask("/api/runs", Authorization=f"Bearer {access.token}").status == 200
    assert served.ask("/api/runs", Cookie=f"{access.cookie_name}=wrong").status == 401


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read(guarded: tuple[Served, Access]) -> None:
    served, access = guarded
    page = served.ask(f"/?token={access.token}")
    assert page.status == 200
    cookie, *attributes = page.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert "history.replaceState" in page.body.decode()  # the page takes the token out of the address
    assert served.ask("/api/runs", Cookie=f"other=1; {cookie}").status == 200
    assert "set-cookie" not in served.ask("/", Cookie=cookie).headers


def test_who_opens_the_page_without_a_token_gets_a_field_for_it(guarded: tuple[Served, Access]) -> None:
    served, access = guarded
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for target, is_wrong in (("/", False), ("/?token=", False), ("/?token=guess", True)):
        reply = served.ask(target, **browser)
        assert (reply.status, reply.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "set-cookie" not in reply.headers
        text = reply.body.decode()
        assert '<input id="token" name="token" type="password"' in text
        assert ("That is not the token" in text) == is_wrong
        assert "guess" not in text
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "form-action 'self'" in policy
        assert "unsafe-inline" not in policy
    # What a script asks for is JSON still, and nothing else has become a page.
    assert "error" in served.ask("/api/runs", **browser).json()
    assert "error" in served.ask("/static/app.js", **browser).json()
    assert served.ask("/", method="HEAD", **browser).body == b""
    assert served.ask(f"/?token={access.token}", **browser).status == 200
    assert served.ask("/", Host="evil.example", **browser).status == 421


def test_on_all_addresses_an_address_is_a_good_host_and_a_foreign_name_is_not(guarded: tuple[Served, Access]) -> None:
    served, access = guarded
    bearer = f"Bearer {access.token}"
    assert served.ask("/api/runs", Host="10.1.2.3:7533", Authorization=bearer).status == 200
    assert served.ask("/api/runs", Host="evil.example", Authorization=bearer).status == 421


@pytest.mark.parametrize("other", ["name with spaces=1", 'a=b; json={"x": [1, 2]}', "[id]=1", "=; ;"])
def test_cookies_of_other_servers_of_the_host_do_no_harm(guarded: tuple[Served, Access], other: str) -> None:
    served, access = guarded
    own = f"{access.cookie_name}={access.token}"
    for cookie in (f"{other}; {own}", f"{own}; {other}"):
        assert served.ask("/api/runs", Cookie=cookie).status == 200
    assert served.ask("/api/runs", Cookie=other).status == 401


def test_two_dashboards_have_two_tokens_and_two_cookies() -> None:
    one, two = access_for("10.0.0.1"), access_for("10.0.0.1")
    assert one.token != two.token
    assert one.cookie_name != two.cookie_name
    assert one.token is not None
    assert len(one.token) >= 43  # 32 random bytes


def test_loopback_needs_no_token_unless_asked_for() -> None:
    assert access_for("127.0.0.1").token is None
    assert access_for("127.0.0.1", require_token=True).token
    assert [is_loopback(host) for host in ("localhost", "127.3.2.1", "::1", "[::1]")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org")] == [False] * 5


def test_host_names() -> None:
    assert host_name("LocalHost:80") == "localhost"
    assert host_name("[::1]:80") == "::1"
    assert [host_name(text) for text in ("", "a b@c", "x:y", "[::1", "a/b", "a?b", "a#b")] == [None] * 7
