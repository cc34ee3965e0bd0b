"""The one check in front of every route, as a table of who may and who may not."""

import base64
import hmac
import secrets
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.auth.credentials import (
    COOKIE_LIFETIME_S,
    FAILURES_MAX,
    TABLE_ROWS_MAX,
    Credentials,
    GuessLimiter,
    LoginCookies,
    find_weakness,
    guess_of,
)
from streamer.auth.policy import Guard, RequestFacts, ServerIdentity, find_exposure

TOKEN, PASSWORD = "t" * 24, "correct horse"
LOCAL = ServerIdentity("127.0.0.1", frozenset(), frozenset())
LAN = ServerIdentity("0.0.0.0", frozenset({"camera.example"}), frozenset({"https://home.example"}))


def facts(**more) -> RequestFacts:
    return RequestFacts(**{"method": "GET", "path": "/stream", "host": "127.0.0.1:8080", "peer": "10.0.0.9", **more})


def status(guard: Guard, now_s: float = 0.0, **more) -> int:
    refusal = guard.check(facts(**more), now_s, 1e9)
    return 200 if refusal is None else refusal.status


# ---- who we are


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.9.9.9"]
)
def test_loopback_names_are_ours(host):
    assert status(Guard(LOCAL, Credentials()), host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", "192.168.1.5", "localhost.evil.example"],
)
def test_a_name_that_is_not_ours_is_refused_against_dns_rebinding(host):
    assert status(Guard(LOCAL, Credentials()), host=host) == 421


@pytest.mark.parametrize("host", ["192.168.1.5:8080", "camera.example", "CAMERA.example:8080", "[fe80::1]"])
def test_on_the_network_addresses_and_configured_names_are_ours(host):
    assert status(Guard(LAN, Credentials()), host=host) == 200


def test_on_the_network_other_names_are_not_ours():
    assert status(Guard(LAN, Credentials()), host="evil.example") == 421


# ---- who may in


def test_without_secrets_every_request_is_allowed():
    assert status(Guard(LOCAL, Credentials())) == 200


@pytest.mark.parametrize("more", [{}, {"cookie": "x"}, {"cookie": "1.2.3"}, {"authorization": "Digest x"}])
def test_with_a_secret_nobody_gets_in_without_showing_it(more):
    assert status(Guard(LAN, Credentials(TOKEN)), host="camera.example", **more) == 401


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
    assert status(Guard(LAN, Credentials(TOKEN, PASSWORD)), host="camera.example", **more) == 200


@pytest.mark.parametrize("guess", ["", "t" * 23, "t" * 25, "T" * 24, "ü" * 24, "\x00"])
def test_wrong_guesses_do_not(guess):
    assert status(Guard(LAN, Credentials(TOKEN)), host="camera.example", token=guess) == 401


def test_an_empty_secret_opens_nothing_when_the_other_one_is_set():
    assert not Credentials(token=TOKEN).match("")
    assert not Credentials(password=PASSWORD).match("")


def test_only_what_a_login_needs_is_public():
    guard = Guard(LAN, Credentials(TOKEN))
    paths = ("/login", "/static/login.js", "/static/app.js", "/", "/metrics", "/healthz", "/static/style.css")
    public = [path for path in paths if status(guard, host="camera.example", path=path) == 200]
    assert public == ["/login", "/static/login.js", "/static/style.css"]


# ---- guessing


def test_after_five_wrong_guesses_a_peer_waits_and_even_the_right_one_does_not_help():
    guard = Guard(LAN, Credentials(TOKEN))
    wrong = [status(guard, n, host="camera.example", token=f"wrong{n}") for n in range(100)]
    assert wrong[:FAILURES_MAX] == [401] * FAILURES_MAX
    assert set(wrong[FAILURES_MAX:60]) == {429}
    assert status(guard, 10.0, host="camera.example", token=TOKEN) == 429
    assert status(guard, 10.0, host="camera.example", token=TOKEN, peer="10.0.0.10") == 200, "another peer is free"


def test_after_a_minute_a_peer_may_guess_again():
    guard = Guard(LAN, Credentials(TOKEN))
    for n in range(FAILURES_MAX):
        status(guard, n, host="camera.example", token="wrong")
    assert status(guard, 61.0, host="camera.example", token=TOKEN) == 200


def test_the_memory_of_guessers_is_bounded():
    limiter = GuessLimiter()
    for n in range(3 * TABLE_ROWS_MAX):
        limiter.count_failure(f"10.0.{n // 256}.{n % 256}", 0.0)
    assert len(limiter._failures) == TABLE_ROWS_MAX


# ---- the cookie


def test_a_cookie_is_valid_until_it_runs_out_or_is_given_back():
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(1000.0)
    assert cookies.is_valid(mine, 1001.0)
    assert not cookies.is_valid(mine, 1000.0 + 8 * 24 * 3600)
    cookies.revoke(mine)
    assert not cookies.is_valid(mine, 1001.0)


def test_a_cookie_survives_a_restart_but_not_another_password():
    mine = LoginCookies(Credentials(TOKEN, PASSWORD)).issue(1000.0)
    assert LoginCookies(Credentials(TOKEN, PASSWORD)).is_valid(mine, 1001.0)
    assert not LoginCookies(Credentials(TOKEN, "another one")).is_valid(mine, 1001.0)


@pytest.mark.parametrize(
    "forged", ["", ".", "..", "9999999999..", "9999999999.x.", "a.b.c", "9" * 5000, "\udcff.x.y", "ü.ü.ü"]
)
def test_a_forged_cookie_is_not_valid(forged):
    assert not LoginCookies(Credentials(TOKEN)).is_valid(forged, 0.0)


def test_a_cookie_of_shmcam_before_itsdangerous_is_not_valid():
    text = f"{int(2e9)}.{secrets.token_urlsafe(12)}"
    key = sha256(f"shmcam pass\0{TOKEN}\0".encode()).digest()
    former = f"{text}.{hmac.new(key, text.encode(), sha256).hexdigest()}"
    assert not LoginCookies(Credentials(TOKEN)).is_valid(former, 1e9)


def test_a_cookie_lasts_a_week_to_the_second_and_survives_a_clock_that_goes_back():
    """A Pi has no clock chip: after a cut of power it may believe for a while that it is last week."""
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(1e9)
    assert cookies.is_valid(mine, 1e9 + COOKIE_LIFETIME_S - 1)
    assert not cookies.is_valid(mine, 1e9 + COOKIE_LIFETIME_S)
    assert cookies.is_valid(mine, 0.0)


def test_only_a_cookie_of_ours_takes_a_row_of_the_revoked_ones():
    """Or else a flood of logouts with invented cookies would bring a revoked one back."""
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(1e9)
    cookies.revoke(mine)
    for n in range(TABLE_ROWS_MAX + 1):
        cookies.revoke(f"{n}.{mine}")
    assert not cookies.is_valid(mine, 1e9)
    for _ in range(2 * TABLE_ROWS_MAX):
        cookies.revoke(cookies.issue(1e9))
    assert len(cookies._revoked) == TABLE_ROWS_MAX


@given(st.binary(max_size=200))
def test_a_cookie_of_any_bytes_is_not_valid_and_never_raises(raw):
    cookies, value = LoginCookies(Credentials(TOKEN)), raw.decode(errors="surrogateescape")
    assert not cookies.is_valid(value, 1e9)
    cookies.revoke(value)


@given(st.data())
def test_a_changed_cookie_is_not_valid_and_never_raises(data):
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(1e9)
    signed = mine.rindex(".")  # behind it base64 has room for a sign that means the same
    at, sign = data.draw(st.integers(0, signed - 1)), data.draw(st.characters())
    changed = mine[:at] + sign + mine[at + 1 :]
    assert cookies.is_valid(changed, 1e9) == (changed == mine)
    cut = mine[: data.draw(st.integers(0, len(mine) - 2))]
    assert not cookies.is_valid(cut, 1e9)


def test_a_revoked_cookie_is_not_valid_in_any_spelling():
    cookies = LoginCookies(Credentials(TOKEN))
    mine = cookies.issue(1e9)
    other = f"{mine}="
    assert cookies.is_valid(other, 1e9), "base64 ignores padding"
    cookies.revoke(other)
    assert not cookies.is_valid(mine, 1e9)
    assert not cookies.is_valid(other, 1e9)


# ---- changes


def change(**more) -> dict:
    return {"method": "POST", "path": "/api/v1/x", "content_type": "application/json", **more}


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_change_must_be_json_which_no_form_can_send(kind):
    assert status(Guard(LOCAL, Credentials()), **change(content_type=kind)) == 415


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:9999", "http://127.0.0.1:8080.evil.example", "http://[evil"],
)
def test_a_change_from_another_origin_is_refused(origin):
    assert status(Guard(LOCAL, Credentials()), **change(origin=origin)) == 403


def test_a_change_from_our_own_page_or_from_a_program_is_welcome():
    guard = Guard(LOCAL, Credentials())
    assert status(guard, **change(origin="http://127.0.0.1:8080")) == 200
    assert status(guard, **change()) == 200
    listed = Guard(LAN, Credentials())
    assert status(listed, **change(host="camera.example", origin="https://home.example")) == 200


def test_a_cookie_alone_changes_nothing():
    guard = Guard(LAN, Credentials(TOKEN))
    cookie = guard.cookies.issue(1e9)
    asked = change(host="camera.example", cookie=cookie)
    assert status(guard, **asked) == 403
    assert status(guard, **asked, own_header=True) == 200
    assert status(guard, **asked, origin="http://camera.example") == 200
    assert status(guard, host="camera.example", cookie=cookie) == 200, "looking is not changing"


@pytest.mark.parametrize(
    ("origin", "expected"), [("http://evil.example", 403), (None, 200), ("http://127.0.0.1:8080", 200)]
)
def test_a_websocket_is_opened_by_our_page_or_by_a_program(origin, expected):
    assert status(Guard(LOCAL, Credentials()), path="/ws", upgrade=True, origin=origin) == expected


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
