"""The one check in front of every route, as a table of who may and who may not."""

import base64
import hmac
import secrets
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.auth.credentials import (
    COOKIE_LIFETIME_S,
    FAILURE_WINDOW_S,
    FAILURES_MAX,
    TABLE_ROWS_MAX,
    TURN_S,
    TURN_WAIT_MAX_S,
    Credentials,
    GuessLimiter,
    LoginCookies,
    find_weakness,
    guess_of,
)
from streamer.auth.peer_uid import LocalUsers
from streamer.auth.policy import Accounts, Guard, Refusal, RequestFacts, ServerIdentity, find_exposure
from streamer.auth.roles import Access, Role

OPEN = Accounts(local="all")
TOKEN, PASSWORD = "t" * 24, "correct horse"
LOCAL = ServerIdentity("127.0.0.1", frozenset(), frozenset())
LAN = ServerIdentity("0.0.0.0", frozenset({"camera.example"}), frozenset({"https://home.example"}))


def facts(**more) -> RequestFacts:
    return RequestFacts(**{"method": "GET", "path": "/stream", "host": "127.0.0.1:8080", "peer": "10.0.0.9", **more})


def status(guard: Guard, now_s: float = 0.0, **more) -> int:
    answer = guard.check(facts(**more), now_s, 1e9)
    return answer.status if isinstance(answer, Refusal) else 200


# ---- who we are


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.9.9.9"]
)
def test_loopback_names_are_ours(host):
    assert status(Guard(LOCAL, Credentials(), OPEN), host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "192.168.1.5", "localhost.evil.example"],
)
def test_a_name_that_is_not_ours_is_refused_against_dns_rebinding(host):
    assert status(Guard(LOCAL, Credentials(), OPEN), host=host) == 421


@pytest.mark.parametrize("host", ["192.168.1.5:8080", "camera.example", "CAMERA.example:8080", "[fe80::1]"])
def test_on_the_network_addresses_and_configured_names_are_ours(host):
    assert status(Guard(LAN, Credentials(), OPEN), host=host) == 200


def test_on_the_network_other_names_are_not_ours():
    assert status(Guard(LAN, Credentials(), OPEN), host="evil.example") == 421


# ---- who may in


def test_without_secrets_every_request_is_allowed():
    assert status(Guard(LOCAL, Credentials(), OPEN)) == 200


@pytest.mark.parametrize("more", [{}, {"cookie": "x"}, {"cookie": "1.2.3"}, {"authorization": "Digest x"}])
def test_with_a_secret_nobody_gets_in_without_showing_it(more):
    assert status(Guard(LAN, Credentials(TOKEN), OPEN), host="camera.example", **more) == 401


@pytest.mark.parametrize(
    "more",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer {TOKEN}"},
        {"authorization": "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()},
        {"authorization": "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()},
        {"token": TOKEN},
    ],
)
def test_token_and_password_are_accepted_in_every_usual_way(more):
    assert status(Guard(LAN, Credentials(TOKEN, PASSWORD), OPEN), host="camera.example", **more) == 200


@pytest.mark.parametrize("guess", ["", "t" * 23, "t" * 25, "T" * 24, "ü" * 24, "\x00"])
def test_wrong_guesses_do_not(guess):
    assert status(Guard(LAN, Credentials(TOKEN), OPEN), host="camera.example", token=guess) == 401


def test_an_empty_secret_opens_nothing_when_the_other_one_is_set():
    assert Credentials(token=TOKEN).find_role("") is Role.NOBODY
    assert Credentials(password=PASSWORD).find_role("") is Role.NOBODY
    assert Credentials().find_role("") is Role.NOBODY


def test_only_what_a_login_needs_is_public():
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    paths = ("/login", "/static/login.js", "/static/app.js", "/", "/metrics", "/healthz", "/static/style.css")
    public = [path for path in paths if status(guard, host="camera.example", path=path) == 200]
    assert public == ["/login", "/static/login.js", "/static/style.css"]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, Role.NOBODY),
        ({"method": "HEAD"}, Role.NOBODY),
        ({"cookie": "of yesterday"}, Role.NOBODY),
        ({"token": TOKEN}, Role.OWNER),
        ({"token": "wrong"}, 401),
        ({"is_local": False}, 401),
        ({"is_forwarded": True}, 401),
        ({"host": "evil.example"}, 421),
        ({"method": "POST", "content_type": "application/json"}, 401),
        ({"path": "/state"}, 401),
    ],
)
def test_a_health_check_of_this_machine_needs_no_secret(more, found):
    asked = {"path": "/healthz", "peer": "127.0.0.1", "is_local": True, **more}
    answer = Guard(LAN, Credentials(TOKEN), OPEN).check(facts(**asked), 0.0, 1e9)
    assert (answer.status if isinstance(answer, Refusal) else answer.role) == found


def test_a_health_check_of_another_user_is_answered_where_only_owners_may_look():
    guard = Guard(LOCAL, Credentials(), Accounts(local="owner", users=LocalUsers(1000, 1000)))
    stranger = {"peer": "127.0.0.1", "is_local": True, "uid": 65534}
    assert status(guard, path="/state", **stranger) == 403
    assert guard.check(facts(path="/healthz", **stranger), 0.0, 1e9) == Access(Role.NOBODY)


# ---- guessing


def test_after_five_wrong_guesses_further_ones_are_refused_and_the_right_one_is_right_all_the_same():
    """A stranger behind the same router or proxy locked the owner out."""
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    wrong = [status(guard, n, host="camera.example", token=f"wrong{n}") for n in range(100)]
    assert wrong[:FAILURES_MAX] == [401] * FAILURES_MAX
    assert set(wrong[FAILURES_MAX:60]) == {429}
    assert status(guard, 10.0, host="camera.example", token=TOKEN) == 200
    assert status(guard, 10.0, host="camera.example", token="wrong", peer="10.0.0.10") == 401, "another peer is free"


def test_guesses_beyond_the_fifth_wait_for_their_turn_so_that_a_word_list_takes_hours():
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    assert guard.take_turn("10.0.0.9", 0.0) == 0.0
    for n in range(FAILURES_MAX):
        guard.check_guess(f"wrong{n}", "10.0.0.9", 0.0)
    turns = [guard.take_turn("10.0.0.9", 1.0) for _ in range(40)]
    assert [b - a for a, b in pairwise(turns)] == pytest.approx([TURN_S] * 39)
    assert max(guard.take_turn("10.0.0.9", 1.0) for _ in range(1000)) == TURN_WAIT_MAX_S, "the owner waits no longer"
    assert guard.take_turn("10.0.0.10", 1.0) == 0.0, "another peer is free"
    assert guard.take_turn("10.0.0.9", FAILURE_WINDOW_S + 1) == 0.0, "and all are after a minute"


def test_the_addresses_of_one_household_count_as_one():
    """With IPv6 a guesser has 2^64 addresses."""
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    found = [guard.check_guess("wrong", f"2001:db8:1:1::{n:x}", 0.0).status for n in range(10)]
    assert found == [401] * FAILURES_MAX + [429] * 5
    assert guard.check_guess("wrong", "2001:db8:1:2::1", 0.0).status == 401


def test_after_a_minute_a_peer_may_guess_again():
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    for n in range(FAILURES_MAX):
        status(guard, n, host="camera.example", token="wrong")
    assert status(guard, 61.0, host="camera.example", token=TOKEN) == 200


def test_the_memory_of_guessers_is_bounded():
    limiter = GuessLimiter()
    for n in range(3 * TABLE_ROWS_MAX):
        peer = f"10.0.{n // 256}.{n % 256}"
        for _ in range(FAILURES_MAX):
            limiter.count_failure(peer, 0.0)
        limiter.take_turn(peer, 0.0)
    assert len(limiter._failures) == len(limiter._turns) == TABLE_ROWS_MAX


# ---- the cookie


def test_a_cookie_is_valid_until_it_runs_out_or_is_given_back():
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(Role.OWNER, 1000.0)
    assert cookies.find_role(mine, 1001.0)
    assert not cookies.find_role(mine, 1000.0 + 8 * 24 * 3600)
    cookies.revoke(mine)
    assert not cookies.find_role(mine, 1001.0)


def test_a_cookie_survives_a_restart_but_not_another_password():
    mine = LoginCookies(Credentials(TOKEN, PASSWORD)).issue(Role.OWNER, 1000.0)
    assert LoginCookies(Credentials(TOKEN, PASSWORD)).find_role(mine, 1001.0)
    assert not LoginCookies(Credentials(TOKEN, "another one")).find_role(mine, 1001.0)


@pytest.mark.parametrize(
    "forged", ["", ".", "..", "9999999999..", "9999999999.x.", "a.b.c", "9" * 5000, "\udcff.x.y", "ü.ü.ü"]
)
def test_a_forged_cookie_is_not_valid(forged):
    assert not LoginCookies(Credentials(TOKEN)).find_role(forged, 0.0)


def test_a_cookie_of_shmcam_before_itsdangerous_is_not_valid():
    text = f"{int(2e9)}.{secrets.token_urlsafe(12)}"
    key = sha256(f"shmcam pass\0{TOKEN}\0".encode()).digest()
    former = f"{text}.{hmac.new(key, text.encode(), sha256).hexdigest()}"
    assert not LoginCookies(Credentials(TOKEN)).find_role(former, 1e9)


def test_a_cookie_lasts_a_week_to_the_second_and_survives_a_clock_that_goes_back():
    """A Pi has no clock chip: after a cut of power it may believe for a while that it is last week."""
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(Role.OWNER, 1e9)
    assert cookies.find_role(mine, 1e9 + COOKIE_LIFETIME_S - 1)
    assert not cookies.find_role(mine, 1e9 + COOKIE_LIFETIME_S)
    assert cookies.find_role(mine, 0.0)


def test_only_a_cookie_of_ours_takes_a_row_of_the_revoked_ones():
    """Or else a flood of logouts with invented cookies would bring a revoked one back."""
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(Role.OWNER, 1e9)
    cookies.revoke(mine)
    for n in range(TABLE_ROWS_MAX + 1):
        cookies.revoke(f"{n}.{mine}")
    assert not cookies.find_role(mine, 1e9)
    for _ in range(2 * TABLE_ROWS_MAX):
        cookies.revoke(cookies.issue(Role.OWNER, 1e9))
    assert len(cookies._revoked) == TABLE_ROWS_MAX


@given(st.binary(max_size=200))
def test_a_cookie_of_any_bytes_is_not_valid_and_never_raises(raw):
    cookies, value = LoginCookies(Credentials(TOKEN)), raw.decode(errors="surrogateescape")
    assert not cookies.find_role(value, 1e9)
    cookies.revoke(value)


@given(st.data())
def test_a_changed_cookie_is_not_valid_and_never_raises(data):
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(Role.OWNER, 1e9)
    signed = mine.rindex(".")  # behind it base64 has room for a sign that means the same
    at, sign = data.draw(st.integers(0, signed - 1)), data.draw(st.characters())
    changed = mine[:at] + sign + mine[at + 1 :]
    assert bool(cookies.find_role(changed, 1e9)) == (changed == mine)
    cut = mine[: data.draw(st.integers(0, len(mine) - 2))]
    assert not cookies.find_role(cut, 1e9)


def test_a_revoked_cookie_is_not_valid_in_any_spelling():
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(Role.OWNER, 1e9)
    other = f"{mine}="
    assert cookies.find_role(other, 1e9), "base64 ignores padding"
    cookies.revoke(other)
    assert not cookies.find_role(mine, 1e9)
    assert not cookies.find_role(other, 1e9)


# ---- changes


def change(**more) -> dict:
    return {"method": "POST", "path": "/api/v1/x", "content_type": "application/json", **more}


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_change_must_be_json_which_no_form_can_send(kind):
    assert status(Guard(LOCAL, Credentials(), OPEN), **change(content_type=kind)) == 415


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:9999", "http://127.0.0.1:8080.evil.example", "http://[evil"],
)
def test_a_change_from_another_origin_is_refused(origin):
    assert status(Guard(LOCAL, Credentials(), OPEN), **change(origin=origin)) == 403


def test_a_change_from_our_own_page_or_from_a_program_is_welcome():
    guard = Guard(LOCAL, Credentials(), OPEN)
    assert status(guard, **change(origin="http://127.0.0.1:8080")) == 200
    assert status(guard, **change()) == 200
    listed = Guard(LAN, Credentials(), OPEN)
    assert status(listed, **change(host="camera.example", origin="https://home.example")) == 200


def test_a_cookie_alone_changes_nothing():
    guard = Guard(LAN, Credentials(TOKEN), OPEN)
    cookie = guard.cookies.issue(Role.OWNER, 1e9)
    asked = change(host="camera.example", cookie=cookie)
    assert status(guard, **asked) == 403
    assert status(guard, **asked, own_header=True) == 200
    assert status(guard, **asked, origin="http://camera.example") == 200
    assert status(guard, host="camera.example", cookie=cookie) == 200, "looking is not changing"


@pytest.mark.parametrize(
    ("origin", "expected"), [("http://evil.example", 403), (None, 200), ("http://127.0.0.1:8080", 200)]
)
def test_a_websocket_is_opened_by_our_page_or_by_a_program(origin, expected):
    assert status(Guard(LOCAL, Credentials(), OPEN), path="/ws", upgrade=True, origin=origin) == expected


# ---- roles


OWNER_ONLY = [
    ("POST", "/api/v1/snapshot"),
    ("GET", "/api/v1/settings"),
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/logs"),
]
LOOKING = [("GET", "/"), ("GET", "/stream"), ("HEAD", "/snapshot.jpg"), ("GET", "/ws"), ("POST", "/api/v1/logout")]


def may(guard: Guard, method: str, path: str, **more) -> bool:
    asked = {"method": method, "path": path, "content_type": "application/json", "own_header": True, **more}
    return status(guard, **asked) == 200


@pytest.mark.parametrize(("method", "path"), OWNER_ONLY + LOOKING)
def test_a_viewer_sees_and_changes_nothing_by_every_way_in(method, path):
    secrets = Credentials(TOKEN, PASSWORD, "v" * 24, "viewers only")
    guard = Guard(LOCAL, secrets, Accounts())
    for viewer in ("v" * 24, "viewers only"):
        cookie = guard.cookies.issue(secrets.find_role(viewer), 1e9)
        basic = "Basic " + base64.b64encode(f"me:{viewer}".encode()).decode()
        for way in ({"token": viewer}, {"authorization": basic}, {"cookie": cookie}):
            assert may(guard, method, path, **way) == ((method, path) in LOOKING)
    owner = guard.cookies.issue(Role.OWNER, 1e9)
    for way in ({"token": TOKEN}, {"authorization": f"Bearer {PASSWORD}"}, {"cookie": owner}):
        assert may(guard, method, path, **way)


def test_a_viewers_cookie_ends_with_the_viewers_password_and_not_with_the_owners():
    cookies = LoginCookies(Credentials(TOKEN, viewer_password="viewers only"))
    viewer = cookies.issue(Role.VIEWER, 1e9)
    assert cookies.find_role(viewer, 1e9) is Role.VIEWER
    assert LoginCookies(Credentials("n" * 24, viewer_password="viewers only")).find_role(viewer, 1e9) is Role.VIEWER
    assert LoginCookies(Credentials(TOKEN, viewer_password="other viewers")).find_role(viewer, 1e9) is Role.NOBODY
    assert LoginCookies(Credentials(TOKEN)).find_role(viewer, 1e9) is Role.NOBODY


class FakeUsers(LocalUsers):
    """User 1000 runs the service, 1001 is in its group, 33 is the web server."""

    def __init__(self) -> None:
        super().__init__(1000, 1000)

    def is_owner(self, uid: int) -> bool:
        return uid in {0, 1000, 1001}


LOCAL_PEER = {"peer": "127.0.0.1", "is_local": True}


@pytest.mark.parametrize(("method", "path"), OWNER_ONLY + LOOKING)
@pytest.mark.parametrize("uid", [0, 1000, 1001, 1002, 33, 65534, None])
@pytest.mark.parametrize("local", ["owner", "look", "all"])
def test_without_a_secret_the_kernel_tells_who_it_is(method, path, uid, local):
    """Every local user could record, delete, and write into the owner's config.toml."""
    guard = Guard(LOCAL, Credentials(), Accounts(local=local, users=FakeUsers()))
    looks = local == "look" and (method, path) in LOOKING
    assert may(guard, method, path, uid=uid, **LOCAL_PEER) == (uid in {0, 1000, 1001} or looks or local == "all")
    through_a_proxy = may(guard, method, path, uid=uid, is_forwarded=True, **LOCAL_PEER)
    may_look = local != "owner" and (method, path) in LOOKING
    assert through_a_proxy == may_look, "a proxy's user says nothing about whom it serves"
    everybody = Guard(LOCAL, Credentials(), Accounts(local=local, insecure=True, users=FakeUsers()))
    assert may(everybody, method, path, uid=uid, is_forwarded=True, **LOCAL_PEER), "insecure_no_auth is for everybody"


def test_one_who_may_only_look_is_told_why_and_what_would_help():
    guard = Guard(LOCAL, Credentials(), Accounts(users=FakeUsers()))
    answer = guard.check(facts(**change(uid=65534, **LOCAL_PEER)), 0.0, 1e9)
    assert isinstance(answer, Refusal)
    assert all(part in answer.reason for part in ("user nobody of this machine", "Join its group", "http.local"))
    access = guard.check(facts(uid=65534, **LOCAL_PEER), 0.0, 1e9)
    assert (access.role, access.is_known) == (Role.VIEWER, False)
    assert "Join its group" in access.reason


@pytest.mark.parametrize(
    ("more", "role"),
    [
        ({"peer": "10.0.0.1", "user": "anna"}, Role.OWNER),
        ({"peer": "10.0.0.1", "user": "ben"}, Role.VIEWER),
        ({"peer": "127.0.0.1", "is_local": True, "uid": 33, "user": "anna"}, Role.OWNER),
        ({"peer": "127.0.0.1", "is_local": True, "uid": 1002, "user": "anna"}, None),  # a person's program, no proxy
        ({"peer": "127.0.0.1", "is_local": True, "uid": None, "user": "anna"}, None),
    ],
)
def test_who_has_logged_in_at_a_trusted_proxy_needs_no_further_secret(more, role):
    guard = Guard(LOCAL, Credentials(TOKEN), Accounts(users=FakeUsers(), proxy_owners=frozenset({"anna"})))
    answer = guard.check(facts(**more), 0.0, 1e9)
    assert (answer.role if isinstance(answer, Access) else None) == role
    assert status(guard, **change(**more)) == (403 if role is not None else 401), "a browser sends cookies by itself"
    assert (status(guard, **change(own_header=True, **more)) == 200) == (role is Role.OWNER)


# ---- starting


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.5", "camera.local", ""])
def test_an_open_address_without_a_secret_is_refused(bind):
    assert "reachable from other machines" in find_exposure(bind, Credentials(), insecure=False)
    assert not find_exposure(bind, Credentials(TOKEN), insecure=False)
    assert not find_exposure(bind, Credentials("", PASSWORD), insecure=False)
    assert not find_exposure(bind, Credentials(), insecure=True)


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_secret(bind):
    assert not find_exposure(bind, Credentials(), insecure=False)


def test_short_secrets_are_refused():
    assert "at least 16" in find_weakness(Credentials(token="short"))
    assert "at least 8" in find_weakness(Credentials(password="short"))
    assert not find_weakness(Credentials(TOKEN, PASSWORD))
    assert "at least 16" in find_weakness(Credentials(TOKEN, viewer_token="short"))
    assert "at least 8" in find_weakness(Credentials(TOKEN, viewer_password="short"))
    assert "needs http.token or http.password" in find_weakness(Credentials(viewer_password=PASSWORD))
    assert "differ" in find_weakness(Credentials(password=PASSWORD, viewer_password=PASSWORD))
    assert not find_weakness(Credentials(TOKEN, PASSWORD, "v" * 24, "another password"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", None), ("Bearer", ""), ("Basic !!", ""), ("Basic é", ""), ("Basic YTpi", "b"), ("Foo x", None)],
)
def test_the_secret_is_read_from_the_header(header, expected):
    assert guess_of(header) == expected


def test_secrets_are_never_compared_with_equals():
    """A comparison with == leaks by its time how much of a guess is right."""
    import ast
    from pathlib import Path

    from streamer.auth import credentials

    tree = ast.parse(Path(credentials.__file__).read_text())
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [
        text
        for text in compared
        if any(word in text for word in ("token", "password", "guess", "signature")) and "len(" not in text
    ]
