"""What a hostile or broken client can cost: floods, slow headers and bodies, half-open peers, guessing, every route.

Where each attack over the network is driven (files of this folder; `limits` is this one):

1 bind          guard: an_open_address_without_a_secret_is_refused;
                process: an_open_address_without_a_secret_ends_with_78
2 trigger port  control/test_trigger_port: every_command_that_is_no_trigger_is_refused, too_many_commands_a_second
3 every route   limits: no_route_answers_without_the_secret
4 token         guard: secrets_are_never_compared_with_equals; process: no_secret_comes_into_the_log
5 guessing      limits: a_hundred_guesses_end_after_five; guard: the_memory_of_guessers_is_bounded
6 CSRF          limits: another_site_cannot_make_a_browser_change_anything; guard: a_cookie_alone_changes_nothing
7 WebSocket     session: another_site_cannot_open_a_websocket, a_message_that_is_too_long_ends_the_connection,
                a_websocket_is_not_compressed_and_ends_when_pings_stay_unanswered
8 rebinding     limits: a_name_that_is_not_ours_gets_nothing; guard: a_name_that_is_not_ours_is_refused
9 slow peers    limits: "slowness" below; stream: a_viewer_who_never_reads_is_reset
10 bodies       limits: bad_bodies_get_a_reason, a_compressed_body_is_not_unpacked, garbage_is_refused_in_json,
                no_body_is_asked_for_that_will_be_refused
14 file names   api: rows_are_named_by_number_alone; limits: bad_bodies_get_a_reason (label);
                library/test_archive: more_than_200_traversal_names_are_refused
15 downloads    api: nothing_outside_our_folders_is_handed_out, strangers_who_are_let_in_get_no_files
20 sandbox      control/test_sandbox
21 output       limits: secrets_appear_in_no_answer; page: names_and_log_lines_cannot_become_scripts;
                stream: no_answer_tells_more_than_it_must; service/test_logs: secrets_never_reach_the_file
"""

import asyncio
import contextlib
import ctypes
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from shmcam.cli.certificate import make_certificate, names_of
from streamer.http import connection
from tests.streamer.harness import UPGRADE, body_of, browsing, eventually, opened, raw, running, soon
from tests.streamer.pictures.test_stream import run

TOKEN = "t" * 24
LOCKED = f'[http]\ntoken = "{TOKEN}"\n'


# ---- every route is behind the check


def test_no_route_answers_without_the_secret(tmp_path):
    """Walks the router itself, so a route that somebody adds tomorrow is checked tomorrow."""
    from streamer.auth.roles import LOCAL_PATHS, PUBLIC_PATHS, find_type_needed
    from streamer.http.routes import build_routes

    async def test():
        async with running(tmp_path, LOCKED, fps=30) as server, browsing(server) as browser:
            checked = 0
            for route in build_routes():
                path = route.path.replace("{strip:keogram|brightness}", "keogram")
                for name, value in {"camera": "cam0", "id": "1", "name": "app.js"}.items():
                    path = path.replace(f"{{{name}}}", value)
                if path in PUBLIC_PATHS | LOCAL_PATHS:  # the latter: the test below
                    continue
                kind = find_type_needed(route.method, path) or "application/json"
                async with browser.request(
                    route.method, path, headers={"Content-Type": kind}, allow_redirects=False
                ) as answer:
                    assert answer.status == 401, (route.method, path)
                    assert (await answer.json())["reason"] == "token or password needed"
                checked += 1
            assert checked > 40
            assert server.hub.asked == [], "nothing was passed on"
            assert server.camera.fanout.viewers == 0

    run(test())


def test_every_route_that_changes_something_is_a_post_and_no_get_changes_anything(tmp_path):
    from streamer.api.openapi import ENDPOINTS

    changing = {"save", "stack", "snapshot", "timelapse", "record", "protect", "unprotect", "delete", "change"}
    for endpoint in ENDPOINTS:
        if endpoint.path.rpartition("/")[2] in changing and endpoint.method == "GET":
            assert endpoint.path == "/cameras/{camera}/record", endpoint.path  # asks for the status
        assert endpoint.method in {"GET", "POST"}


def test_the_token_opens_every_way_and_a_wrong_one_none(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED, fps=30) as server, browsing(server) as browser:
            for more in ({"headers": {"Authorization": f"Bearer {TOKEN}"}}, {"params": {"token": TOKEN}}):
                assert (await browser.get("/snapshot.jpg", **more)).status == 200
            assert (await browser.get("/snapshot.jpg", params={"token": "wrong"})).status == 401
            assert (await browser.ws_connect("/ws", headers={"Authorization": f"Bearer {TOKEN}"})) is not None

    run(test())


def test_a_health_check_without_a_secret_learns_one_word(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED, fps=30) as server, browsing(server) as browser:
            await eventually(lambda: server.camera.number > 3)
            bare = await browser.get("/healthz")
            whole = await browser.get("/healthz", params={"token": TOKEN})
            assert bare.status == whole.status
            assert await bare.json() == {"status": "ok" if bare.status == 200 else "trouble"}
            assert {"cameras", "reasons", "disk"} <= set(await whole.json())

    run(test())


def test_logging_in_at_the_page(tmp_path):
    async def test():
        async with (
            running(tmp_path, '[http]\npassword = "correct horse"\n', fps=30) as server,
            browsing(server) as browser,
        ):
            first = await browser.get("/", headers={"Accept": "text/html"}, allow_redirects=False)
            assert (first.status, first.headers["Location"]) == (303, "login")
            assert (await browser.get("/login")).status == 200
            wrong = await browser.post("/api/v1/login", json={"secret": "battery staple"})
            assert (wrong.status, (await wrong.json())["reason"]) == (401, "wrong token or password")
            right = await browser.post("/api/v1/login", json={"secret": "correct horse"})
            assert right.status == 204
            cookie = right.headers["Set-Cookie"]
            assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="))
            assert "Secure" not in cookie, "over plain HTTP a browser would not send it back"
            mine = {"Cookie": cookie.partition(";")[0]}
            assert (await browser.get("/", headers=mine)).status == 200
            unmarked = await browser.post("/api/v1/settings", headers=mine, json={"changes": {"a": 1}})
            assert (unmarked.status, server.hub.asked) == (403, [])
            marked = await browser.post(
                "/api/v1/settings", headers={**mine, "X-Shmcam": "1"}, json={"changes": {"a": 1}}
            )
            assert marked.status == 200
            await browser.post("/api/v1/logout", headers={**mine, "X-Shmcam": "1"}, json={})
            assert (await browser.get("/api/v1/cameras", headers=mine)).status == 401

    run(test())


def test_a_login_over_https_at_the_proxy_is_a_cookie_for_https_only(tmp_path):
    async def test():
        text = '[http]\npassword = "correct horse"\ntrusted_proxies = ["127.0.0.1"]\n'
        async with running(tmp_path, text, fps=30) as server, browsing(server) as browser:
            headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.7"}
            answer = await browser.post("/api/v1/login", json={"secret": "correct horse"}, headers=headers)
            assert answer.status == 204 and "; Secure" in answer.headers["Set-Cookie"]

    run(test())


def test_a_link_with_the_token_logs_in_and_leaves_the_address_bar_without_it(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED, fps=30) as server, browsing(server) as browser:
            accept = {"Accept": "text/html"}
            link = await browser.get("/", params={"token": TOKEN}, headers=accept, allow_redirects=False)
            assert (link.status, link.content_type, link.headers["Cache-Control"]) == (200, "text/html", "no-store")
            assert "Content-Security-Policy" in link.headers
            assert (await link.text()).count("./") == 2, "it goes on by itself, or by a click where it may not"
            assert TOKEN not in await link.text()
            cookie = link.headers["Set-Cookie"]
            assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict"))
            mine = {"Cookie": cookie.partition(";")[0]}
            assert (await browser.get("/api/v1/overview", headers=mine)).status == 200
            wrong = await browser.get("/", params={"token": "wrong"}, headers=accept, allow_redirects=False)
            assert (wrong.status, wrong.headers["Location"], wrong.headers.get("Set-Cookie")) == (303, "login", None)

    run(test())


def test_a_hundred_guesses_end_after_five(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED) as server, browsing(server) as browser:
            found = [(await browser.get("/healthz", params={"token": f"guess {n}"})).status for n in range(100)]
            assert found[:5] == [401] * 5
            assert set(found[5:]) == {429}
            last = await browser.get("/healthz", params={"token": "guess"})
            assert 0 < int(last.headers["Retry-After"]) <= 61
            right = await browser.get("/state", params={"token": TOKEN})
            assert right.status == 200, "a stranger at the same address cannot lock its owner out"
            login = await browser.post("/api/v1/login", json={"secret": TOKEN})
            assert login.status == 204

    run(test())


def test_secrets_appear_in_no_answer(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED) as server, browsing(server) as browser:
            server.hub.reply.data["settings"] = {"http.token": TOKEN}
            for path in ("/api/v1/settings", "/api/v1/overview", "/metrics", "/openapi.json", "/state"):
                body = await (await browser.get(path, params={"token": TOKEN})).text()
                assert TOKEN not in body, path

    run(test())


# ---- other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content-Type": "application/json", "Origin": "null"}, 403),
        ({"Content-Type": "application/json"}, 200),
    ],
)
def test_another_site_cannot_make_a_browser_change_anything(tmp_path, headers, status):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            answer = await browser.post("/api/v1/cameras/cam0/record", data=b'{"action": "start"}', headers=headers)
            assert answer.status == status
            assert bool(server.hub.asked) == (status == 200)

    run(test())


@pytest.mark.parametrize(
    ("method", "header", "status"),
    [
        ("POST", b"Origin: http://[evil", 403),
        ("POST", b"Origin: http://[::1]:99999999", 403),
        ("GET", b"Authorization: Basic \xc3\xa9", 401),
        ("GET", b"Authorization: Basic \xff\xfe", 401),
        ("GET", b"Authorization: Bearer \xc3\xa9\xff", 401),
        ("GET", b"Cookie: shmcam_pass=\xff.\xc3\xa9.", 401),
        ("GET", b"Cookie: shmcam_pass=" + b"." * 500, 401),
    ],
)
def test_headers_without_sense_are_refused_with_a_reason(tmp_path, caplog, method, header, status):
    async def test():
        async with running(tmp_path, LOCKED, fps=30) as server:
            line = f"{method} /api/v1/cameras HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
            more = b"Content-Type: application/json\r\nContent-Length: 2\r\n" if method == "POST" else b""
            answer = await raw(server.port, line + more + header + b"\r\n\r\n" + (b"{}" if more else b""))
            assert body_of(answer)["status"] == status
            assert int(answer.split()[1]) == status

    run(test())
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_a_name_that_is_not_ours_gets_nothing(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server:
            answer = await raw(
                server.port, b"GET /snapshot.jpg HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            )
            assert answer.startswith(b"HTTP/1.1 421")
            assert "http.hosts" in body_of(answer)["reason"]

    run(test())


# ---- bodies and garbage


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "body"),
        (b"[1, 2]", 400, "Expected `object`"),
        (b'{"action": "dance"}', 400, "expected start|stop|status|trigger, got 'dance'"),
        (b'{"duration_s": NaN}', 400, "body"),
        (b'{"duration_s": 1e400}', 400, "body"),
        (b"\xff\xfe", 400, "body"),
        (b"[" * 60_000, 400, ""),
        (b'{"label": "' + b"x" * 70_000 + b'"}', 413, ""),
        (b'{"label": "../../etc"}', 400, "label"),
    ],
)
def test_bad_bodies_get_a_reason(tmp_path, body, status, reason):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            answer = await browser.post(
                "/api/v1/cameras/cam0/record", data=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == status
            said = await answer.json()
            assert said["status"] == status
            assert reason in said["reason"]
            assert server.hub.asked == []

    run(test())


@pytest.mark.parametrize(
    "body", [gzip.compress(b"{}"), gzip.compress(bytes(20_000_000)), b"\x1f\x8bbroken"], ids=["small", "bomb", "broken"]
)
def test_a_compressed_body_is_not_unpacked(tmp_path, caplog, body):
    async def test():
        async with running(tmp_path) as server, browsing(server) as browser:
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            answer = await browser.post("/api/v1/cameras/cam0/record", data=body, headers=headers)
            assert (answer.status, "without Content-Encoding" in (await answer.json())["reason"]) == (415, True)
            assert server.hub.asked == []

    run(test())
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


NOT_INVITED = [
    # secret shown, request line and headers, status
    (False, "POST /api/v1/snapshot", "Expect: 100-continue", 401),
    (False, "POST /api/v1/snapshot", "Expect: a miracle", 401),
    (False, "GET /stream", "Expect: a miracle", 401),
    (False, "POST /nowhere", "Expect: 100-continue", 401),
    (True, "POST /api/v1/snapshot", "Expect: a miracle", 417),
    (True, "POST /api/v1/snapshot", "Expect: 100-continue\r\nExpect: a miracle", 417),
    (True, "GET /stream", "Expect: \xff", 417),
    (True, "POST /nowhere", "Expect: a miracle", 417),
    (True, "POST /nowhere", "Expect: 100-continue", 404),
    (True, "POST /stream", "Expect: 100-continue", 405),
    (True, "OPTIONS /stream", "Expect: 100-continue\r\nContent-Type: text/plain", 405),
    (True, "POST /api/v1/snapshot", "Expect: 100-continue\r\nContent-Type: text/plain", 415),
    (True, "POST /api/v1/snapshot", "Expect: 100-continue\r\nContent-Encoding: gzip", 415),
    (True, "POST /api/v1/snapshot", "Expect: 100-continue\r\nContent-Length: 70000", 413),
    (True, "POST /api/v1/snapshot", "Expect: 100-continue\r\nOrigin: http://evil.example", 403),
]


async def told(reader: asyncio.StreamReader) -> tuple[int, dict, bytes]:
    """The next answer on a connection: status, headers, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def test_no_body_is_asked_for_that_will_be_refused(tmp_path):
    """aiohttp says "100 Continue" ahead of every check, and refuses other expectations in plain text."""

    async def test():
        async with running(tmp_path, LOCKED) as server:
            for shown, line, more, status in NOT_INVITED:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                said = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": "2"}
                said |= {"Authorization": f"Bearer {TOKEN}"} if shown else {}
                own = "".join(f"{name}: {value}\r\n" for name, value in said.items() if f"{name}:" not in more)
                writer.write(f"{line} HTTP/1.1\r\n{own}{more}\r\n\r\n".encode("latin-1"))
                answered, headers, body = await told(reader)
                assert (answered, json.loads(body)["status"]) == (status, status), (line, more)
                assert (headers["server"], headers["connection"]) == ("shmcam", "close"), "the body is not waited for"
                assert json.loads(body)["reason"]
                writer.close()
            assert server.hub.asked == []

    run(test())


@pytest.mark.parametrize(("version", "interim"), [("1.1", True), ("1.0", False)])
def test_a_body_that_is_wanted_is_asked_for_when_it_is_read(tmp_path, version, interim):
    async def test():
        async with running(tmp_path, LOCKED) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = (
                f"POST /api/v1/snapshot HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n"
            )
            for count in (1, 2):
                writer.write(f"{head}Expect:\r\nExpect: 100-Continue\r\n\r\n".encode())
                if interim:
                    assert await told(reader) == (100, {}, b"")
                assert len(server.hub.asked) == count - 1
                writer.write(b"{}")
                answered, _, body = await told(reader)
                assert (answered, json.loads(body)["status"]) == (200, "done")
                assert len(server.hub.asked) == count, "and the connection goes on"
            writer.close()

    run(test())


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST /api/v1/snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_garbage_is_refused_in_json_and_the_server_lives(tmp_path, data):
    async def test():
        async with running(tmp_path, fps=30) as server, browsing(server) as browser:
            answer = await raw(server.port, data)
            assert answer.split()[1].startswith(b"4"), answer[:100]
            assert b"Traceback" not in answer
            assert b"aiohttp" not in answer
            assert body_of(answer)["status"] in range(400, 500)
            assert (await browser.get("/snapshot.jpg")).status == 200

    run(test())


# ---- slowness

QUICK = "[http]\nheader_s = 1.0\nbody_s = 1.0\nwrite_s = 1.0\nmax_connections = 24\n"


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1\r\nHost: local", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_idle_connections_and_slow_headers_end(tmp_path, data):
    async def test():
        async with running(tmp_path, QUICK) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            await soon(reader.read())  # returns when the server has closed
            writer.close()
            await eventually(lambda: not server.context.connections.open)

    run(test())


def test_a_slow_body_ends_with_its_reason(tmp_path):
    async def test():
        async with running(tmp_path, QUICK) as server:
            head = b"POST /api/v1/snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            answer = await raw(server.port, head + b"Content-Length: 50\r\n\r\n{")
            assert answer.startswith(b"HTTP/1.1 408")
            assert server.hub.asked == []

    run(test())


async def flood(port: int, count: int) -> list[socket.socket]:
    """Connections that say half a header and nothing more; no tasks, so that thousands fit into a test."""
    loop, found = asyncio.get_running_loop(), []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        found.append(sock)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: loc")
    return found


async def _survives_flood(tmp_path, count: int) -> None:
    async with running(tmp_path, QUICK, fps=30) as server, browsing(server) as browser:
        _, _, reader, _ = await opened(server, "/stream")
        sockets = await flood(server.port, count)
        try:
            assert len(server.context.connections.open) <= 24
            answer = await soon(browser.get("/snapshot.jpg"))
            assert answer.status == 200, "a person gets through"
            assert server.context.connections.counts.evicted > 0
            assert await soon(reader.read(1000)), "who watches goes on watching"
            await eventually(lambda: len(server.context.connections.open) <= 2, 15, "the flood to be over")
        finally:
            for sock in sockets:
                sock.close()


def test_a_flood_of_slow_connections_locks_nobody_out(tmp_path):
    run(_survives_flood(tmp_path, 200))


@pytest.mark.slow
def test_a_flood_of_2000_slow_connections_locks_nobody_out(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4500:
        pytest.skip(f"needs 4500 open files for both ends; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4500), hard))
    run(_survives_flood(tmp_path, 2000))


def test_when_all_places_are_busy_a_newcomer_is_told(tmp_path):
    async def test():
        async with running(tmp_path, "[http]\nmax_connections = 8\n", fps=30) as server:
            for _ in range(8):
                await opened(server, "/stream")
            await eventually(lambda: server.camera.fanout.viewers == 8)
            answer = await raw(server.port, b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Retry-After" in answer
            assert "too many connections" in body_of(answer)["reason"]

    run(test())


def test_a_download_that_goes_on_is_not_idle(tmp_path):
    """Its handler has returned while the file is sent, so as the oldest connection it was the first to make room."""
    from shmcam.library import Entry

    async def test():
        async with running(tmp_path, "[http]\nmax_connections = 8\nsend_buffer_kib = 64\n") as server:
            big = tmp_path / "recordings" / "big.mp4"
            big.parent.mkdir()
            big.write_bytes(bytes(10_000_000))
            entry = server.context.catalogue.add(Entry(kind="clip", camera="cam0", path=big, started_utc_ns=1))
            path = f"/api/v1/library/{entry.id}/file"
            _, _, reader, _ = await opened(server, path, receive_buffer=65536)
            others = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(9)]
            connections = server.context.connections
            await eventually(lambda: connections.counts.evicted == 2, what="two of the others to make room")
            await soon(reader.readexactly(10_000_000), 30)
            await eventually(lambda: not any(one.requests for one in connections.open), what="it to be idle again")
            for _, writer in others:
                writer.close()

    run(test())


def test_one_peer_cannot_take_all_places():
    """Peers behind one address other than loopback share a limit of their own."""
    from streamer.http.connection import ConnectionLimits, ConnectionTable

    class Peer:
        def __init__(self, peer: str) -> None:
            self.peer, self.requests, self.ended = peer, 1, False

        def reset(self) -> None:
            self.ended = True

    table = ConnectionTable(
        ConnectionLimits(connections=10, per_peer=3, endless_shared=9, header_s=1, write_s=1, send_buffer_bytes=65536)
    )
    taken = [table.add(Peer("10.0.0.1")) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    assert all(table.add(Peer(f"10.0.1.{n}")) for n in range(7))
    idle = next(iter(table.open))
    idle.requests = 0
    assert table.add(Peer("10.0.2.1")), "the longest idle one makes room"
    assert idle.ended
    assert not table.add(Peer("10.0.2.2")), "nobody is idle any more"
    assert (table.counts.accepted, table.counts.refused, table.counts.evicted) == (11, 3, 1)


def test_a_household_with_ipv6_is_one_peer_and_its_own_idle_connections_make_room():
    """Each machine of the internet has 2^64 addresses there."""
    from streamer.http.connection import ConnectionLimits, ConnectionTable

    class Peer:
        def __init__(self, number: int) -> None:
            self.peer, self.requests, self.ended = f"2001:db8:1:1::{number:x}", 1, False

        def reset(self) -> None:
            self.ended = True

    limits = ConnectionLimits(
        connections=10, per_peer=3, endless_shared=9, header_s=1, write_s=1, send_buffer_bytes=65536
    )
    table = ConnectionTable(limits)
    peers = [Peer(n) for n in range(1, 6)]
    assert [table.add(peer) for peer in peers] == [True, True, True, False, False]
    peers[1].requests = 0
    assert table.add(peers[3])
    assert peers[1].ended, "its own idle connection made room"
    assert table.add(Peer(0xFFFF)) is False, "still the same /64"


def test_streams_leave_connections_of_a_peer_and_of_all_to_pages_and_logins():
    from streamer.http.connection import ConnectionLimits, ConnectionTable, TooManyConnections

    class Peer:
        requests = 1

        def __init__(self, peer: str) -> None:
            self.peer = peer

    def held(table, address: str, wanted: int) -> int:
        count = 0
        for _ in range(wanted):
            peer = Peer(address)
            assert table.add(peer)
            try:
                table.hold(peer, address)
                count += 1
            except TooManyConnections:
                table.remove(peer)
        return count

    limits = ConnectionLimits(
        connections=64, per_peer=16, endless_shared=20, header_s=1, write_s=1, send_buffer_bytes=65536
    )
    table = ConnectionTable(limits)
    assert held(table, "10.0.0.1", 14) == 12, "a quarter of a peer's connections is not for streams"
    assert held(table, "127.0.0.1", 30) == 20, "and one program of this machine cannot take all places of viewers"
    assert sum(held(table, f"10.0.1.{n}", 4) for n in range(10)) == 60 - 32
    first = next(iter(table.open))
    table.release(first)
    table.hold(first, "10.0.0.1")
    successor = Peer("10.0.0.1")
    table.replace(first, successor)
    table.remove(successor)
    assert held(table, "10.0.0.1", 2) == 1, "a place is given back with its connection"


def test_endless_streams_of_one_address_leave_it_the_page_and_everybody_else_their_places(tmp_path):
    async def test():
        async with running(tmp_path, "[http]\nmax_connections_per_peer = 4\n", fps=30) as server:
            server.context.connections._is_shared = lambda address: False  # as if it were another machine
            found = [
                (await opened(server, path, UPGRADE if "ws" in path else ""))[0]
                for path in ("/stream", "/ws", "/stream")
            ]
            assert [status.split()[1] for status in found] == ["200", "101", "200"]
            status, headers, *_ = await opened(server, "/stream", "Connection: close\r\n")
            assert (status.split()[1], headers["retry-after"]) == ("503", "5")
            async with browsing(server) as browser:
                assert (await browser.get("/")).status == 200
            server.held.pop(0).close()
            await eventually(lambda: server.camera.fanout.viewers == 1, what="its place to be given back")
            assert (await opened(server, "/stream"))[0].split()[1] == "200"

    run(test())


def test_a_flood_of_logins_whose_bodies_never_come_keeps_nobody_out(tmp_path, caplog):
    async def test():
        text = '[http]\npassword = "correct horse"\nmax_connections = 16\nbody_s = 60.0\n'
        async with running(tmp_path, text) as server, browsing(server) as browser:
            head = "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            for _ in range(40):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                server.held.append(writer)
                writer.write(f"{head}Content-Length: 30\r\n\r\n{{".encode())
            await eventually(lambda: server.context.connections.counts.accepted >= 40, what="all have come")
            login = await browser.post("/api/v1/login", json={"secret": "correct horse"})
            assert login.status == 204
            assert server.context.connections.counts.refused == 0

    run(test())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_flood_of_wrong_guesses_that_wait_for_their_turn_keeps_nobody_out(tmp_path):
    async def test():
        text = f'{LOCKED}max_connections = 16\ntrusted_proxies = ["127.0.0.1"]\n'
        async with running(tmp_path, text, fps=30) as server, browsing(server) as browser:
            for number in range(120):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                server.held.append(writer)
                writer.write(f"GET /state?token=wrong{number} HTTP/1.1\r\nHost: localhost\r\n".encode())
                writer.write(b"X-Forwarded-For: 203.0.113.9\r\n\r\n")
            await eventually(lambda: server.context.connections.counts.accepted >= 120, what="all have come")
            assert (await browser.get("/snapshot.jpg", params={"token": TOKEN})).status == 200
            assert server.context.connections.counts.refused == 0

    run(test())


def test_viewers_that_come_in_one_instant_are_all_served(tmp_path):
    """Those accepted but not begun counted as handshakes; beyond 64 the first were closed, uncounted."""

    async def test():
        async with running(tmp_path, fps=30) as server:
            ends = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]  # the server sleeps
            for end in ends:
                server.held.append((await asyncio.open_connection(sock=end))[1])
            await eventually(lambda: server.context.connections.counts.accepted == 150, what="all are accepted")
            assert server.context.connections.counts.evicted == 0

    run(test())


@contextlib.asynccontextmanager
async def running_tls(tmp_path):
    """A server with a certificate, and how a client trusts it."""
    make_certificate(tmp_path, names_of([]), days=1, force=False)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with running(tmp_path, '[http]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n', fps=30) as server:
        yield server, trusting


async def gets_a_picture(server, trusting) -> bool:
    reader, writer = await soon(asyncio.open_connection("127.0.0.1", server.port, ssl=trusting))
    server.held.append(writer)
    writer.write(b"GET /snapshot.jpg HTTP/1.0\r\n\r\n")
    return (await soon(reader.readline())).endswith(b"200 OK\r\n")


def test_peers_that_never_finish_their_tls_handshake_make_room(tmp_path, monkeypatch):
    """They had no limit: a thousand took all descriptors of the process for ten seconds."""
    monkeypatch.setattr("streamer.http.listener.HANDSHAKES_MAX", 8)

    async def test():
        async with running_tls(tmp_path) as (server, trusting):
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
            assert await gets_a_picture(server, trusting)
            await eventually(lambda: sum(end.at_eof() for end, _ in silent) >= 32, what="the oldest make room")
            assert server.context.connections.counts.evicted >= 32

    run(test())


def test_handshakes_beyond_the_limit_wait_for_those_that_go_on(tmp_path, monkeypatch):
    """The longest one had to make room at once, also when it was an honest one of many."""
    monkeypatch.setattr("streamer.http.listener.HANDSHAKES_MAX", 4)

    async def test():
        async with running_tls(tmp_path) as (server, trusting):
            assert all(await asyncio.gather(*(gets_a_picture(server, trusting) for _ in range(40))))
            assert server.context.connections.counts.evicted == 0

    run(test())


def test_a_client_that_downloads_and_never_reads_is_reset(tmp_path):
    """Files do not bypass the write deadline by sendfile."""
    from shmcam.library import Entry

    async def test():
        async with running(tmp_path, "[http]\nwrite_s = 1.0\nsend_buffer_kib = 64\n") as server:
            big = tmp_path / "recordings" / "big.mp4"
            big.parent.mkdir()
            big.write_bytes(bytes(30_000_000))
            entry = server.context.catalogue.add(Entry(kind="clip", camera="cam0", path=big, started_utc_ns=1))
            await opened(server, f"/api/v1/library/{entry.id}/file", receive_buffer=4096)
            await eventually(lambda: server.context.connections.counts.reset == 1, 15)
            await eventually(lambda: not server.context.connections.open)

    run(test())


def test_a_slow_client_that_does_read_is_not_reset(tmp_path):
    async def test():
        from tests.streamer.harness import jpeg_of

        jpeg = jpeg_of(1, 1280, 720, noise=1)
        async with running(tmp_path, "[http]\nwrite_s = 1.0\nsend_buffer_kib = 16\n", fps=20, jpeg=jpeg) as server:
            _, _, reader, _ = await opened(server, "/stream", receive_buffer=4096)
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                assert await reader.read(2000)
                await asyncio.sleep(0.02)
            assert server.context.connections.counts.reset == 0

    run(test())


def test_a_half_open_peer_has_a_deadline_in_the_kernel(tmp_path):
    async def test():
        async with running(tmp_path) as server:
            await opened(server, "/stream")
            connection = next(iter(server.context.connections.open))
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 256 * 1024 + 4096

    run(test())


DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of classic BPF, `ret #0`: the socket takes nothing any more (linux/filter.h)."""


def falls_silent(sock: socket.socket) -> None:
    """Make this end half open: the kernel drops what comes for it, so it acknowledges nothing and answers no probe."""
    program = ctypes.create_string_buffer(DROP_ALL)
    attached = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, 26, attached)  # SO_ATTACH_FILTER
    except PermissionError:
        pytest.skip("this kernel lets only root put a filter on a socket")


@pytest.mark.parametrize("path", ["/stream?fps=5&quality=10", "/ws"])
def test_a_half_open_peer_loses_its_place(tmp_path, monkeypatch, path):
    """Its cable is out: no FIN, no RST, no acknowledgement. A slow stream never fills what write_s watches."""
    monkeypatch.setattr("streamer.http.connection.TCP_USER_TIMEOUT_MS", 1000)

    async def test():
        async with running(tmp_path, fps=5) as server:
            _, _, reader, writer = await opened(server, path, UPGRADE if path == "/ws" else "")
            if path == "/ws":
                text = b'{"type": "create"}'
                writer.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
            await reader.read(100)
            await eventually(lambda: server.camera.fanout.viewers == 1)
            falls_silent(writer.get_extra_info("socket"))
            await eventually(lambda: server.camera.fanout.viewers == 0, 20, "the place to be given back")
            assert server.context.viewer_slots.streams == 0
            assert not server.context.connections.open

    run(test())


def test_a_player_that_leaves_before_its_film_begins_is_no_error(tmp_path, caplog):
    from tests.streamer.h264.test_live import INIT_SEGMENT, piece

    async def test():
        async with running(tmp_path, fps=30) as server:
            live = server.camera.live_video
            for path in ("/live.mp4", "/ws/live"):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                more = UPGRADE if "ws" in path else ""
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
                await eventually(lambda: live.viewers)
                writer.transport.abort()
                await eventually(lambda: not server.context.connections.open)
                live.deliver(1, INIT_SEGMENT, piece(1, key=True))
                await eventually(lambda: not live.viewers)
                assert server.context.viewer_slots.streams == 0

    run(test())
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_a_reset_frees_the_kernels_buffers(tmp_path):
    """SO_LINGER 0 before the abort: 50 orphaned sockets once held 33 MB."""

    async def test():
        async with running(tmp_path) as server:
            _, _, reader, _ = await opened(server, "/stream")
            connection = next(iter(server.context.connections.open))
            sock = connection.transport.get_extra_info("socket")
            connection.reset()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
            with pytest.raises(ConnectionResetError):
                while await reader.read(100):
                    pass

    run(test())


def test_a_hung_disk_does_not_keep_new_connections_out(tmp_path):
    """Without a secret the kernel is asked who connects; that waited behind thumbnails and zips of a hung disk."""
    disk = threading.Event()

    async def check():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        async with running(tmp_path) as server, browsing(server) as browser:
            hung = loop.run_in_executor(None, disk.wait, 60)
            try:
                async with asyncio.timeout(30):
                    assert (await browser.get("/healthz")).status in (200, 503)
            finally:
                disk.set()
                await hung

    asyncio.run(check())


@pytest.mark.parametrize(
    ("unsent", "least_s"),
    [((1000 for _ in count()), 0.0), (count(1000, -1), 0.2)],
    ids=["takes nothing", "takes a byte now and then"],
)
def test_a_write_ends_when_nothing_is_taken_and_at_the_latest_after_its_whole_time(monkeypatch, unsent, least_s):
    """A peer that takes a byte before each look would hold its connection, and what waits in it, for ever."""
    monkeypatch.setattr(connection, "WRITE_TOTAL_S", 0.2)
    monkeypatch.setattr(connection, "count_unsent_bytes", lambda _transport: next(unsent))
    ended = []
    monkeypatch.setattr(connection, "reset", ended.append)

    async def test():
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()
        began_s = loop.time()
        connection.WriteDeadline("peer", 0.01, is_over.set)
        cancelled = connection.WriteDeadline("quick peer", 0.01, is_over.set)
        cancelled.cancel()
        await asyncio.wait_for(is_over.wait(), 60)
        assert loop.time() - began_s >= least_s and ended == ["peer"]

    run(test())
