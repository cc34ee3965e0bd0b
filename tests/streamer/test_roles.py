"""Who may do what, over every route: an owner, a viewer, another user of this machine, and nobody."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from streamer.auth.roles import PUBLIC_PATHS
from streamer.http.routes import build_routes
from tests.machine import PATIENCE
from tests.streamer.harness import Threaded, browsing, running
from tests.streamer.pictures.test_stream import run

OWNER, VIEWER = "o" * 24, "v" * 24
TWO_ACCOUNTS = f'[http]\ntoken = "{OWNER}"\nviewer_token = "{VIEWER}"\nviewer_password = "only look"\n'

OWNER_READS = {"GET /api/v1/settings", "GET /api/v1/config", "GET /api/v1/logs"}
SLOW = {"GET /live.mp4", "GET /cam/cam0/live.mp4", "GET /ws/live"}
"""They wait for a key frame."""


def is_for_viewers(name: str) -> bool:
    """The whole table: a viewer reads, but no settings and no logs, and changes nothing but logs out.

    To watch by WebRTC is to POST an offer.
    """
    return (name.startswith("GET ") and name not in OWNER_READS) or name == "POST /api/v1/logout" or "whep" in name


def routes() -> dict[str, tuple[str, str]]:
    """Every route with a name in its place, by "METHOD path", without the public ones."""
    found = {}
    for route in build_routes():
        path = route.path.replace("{strip:keogram|brightness}", "keogram")
        for name, value in {"camera": "cam0", "id": "1", "name": "app.js"}.items():
            path = path.replace(f"{{{name}}}", value)
        method = "GET" if route.method == "*" else route.method
        if path not in PUBLIC_PATHS:
            found[f"{method} {path}"] = (method, path)
    return found


def test_the_table_of_who_may_do_what_over_every_route(tmp_path):
    """A request that a role may not send is 401 or 403 and reaches nobody; one that it may is anything else."""

    async def status_of(browser, method: str, path: str, token: str) -> int:
        kind = "application/sdp" if "whep" in path else "application/json"
        headers = {"Content-Type": kind, "Authorization": f"Bearer {token}"}
        async with browser.request(method, path, headers=headers, allow_redirects=False) as answer:
            return answer.status

    async def test():
        async with running(tmp_path, TWO_ACCOUNTS, fps=30) as server, browsing(server) as browser:
            found = routes()
            assert set(found) >= OWNER_READS | SLOW | {"POST /api/v1/logout", "POST /api/v1/settings"}
            for name, (method, path) in found.items():
                if name in SLOW:
                    continue
                assert await status_of(browser, method, path, "x" * 24) in {401, 429}, name
                assert (await status_of(browser, method, path, VIEWER) == 403) == (not is_for_viewers(name)), name
            owners = [command for command in server.hub.asked if type(command).__name__ in {"Save", "Record", "Set"}]
            assert owners == [] or all(getattr(command, "action", "") == "status" for command in owners)
            for name in (name for name in found if not is_for_viewers(name)):
                assert await status_of(browser, *found[name], OWNER) not in {401, 403}, name

    run(test())


def test_the_page_of_a_viewer_is_told_its_role_and_the_reason(tmp_path):
    async def test():
        async with running(tmp_path, TWO_ACCOUNTS, fps=30) as server, browsing(server) as browser:
            for secret, role in (("only look", "viewer"), (OWNER, "owner")):
                login = await browser.post("/api/v1/login", json={"secret": secret})
                mine = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
                overview = await (await browser.get("/api/v1/overview", headers=mine)).json()
                assert (login.status, overview["role"]) == (204, role)
                assert ("log out, and in with the owner's password" in overview["role_reason"]) == (role == "viewer")

    run(test())


PYTHON = "/usr/bin/python3"
"""One that every user may run; the .venv may lie in somebody's home."""
AS_NOBODY = pytest.mark.skipif(os.geteuid() != 0 or not Path(PYTHON).exists(), reason="needs root, to ask as nobody")
ASK = """
import json, sys, urllib.error, urllib.request
found = {}
for method, path in json.loads(sys.argv[2]):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(sys.argv[1] + path, data=b"{}" if method == "POST" else None, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            found[path] = [answer.status, answer.read(300).decode(errors="replace")]
    except urllib.error.HTTPError as refused:
        found[path] = [refused.code, refused.read().decode()]
print(json.dumps(found))
"""


def ask_as_nobody(url: str, *requests: tuple[str, str], script: str = ASK) -> dict[str, list]:
    who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    done = subprocess.run(
        [PYTHON, "-c", script, url, json.dumps(requests)],
        capture_output=True, text=True, check=True, timeout=PATIENCE * 30, cwd="/", **who,
    )  # fmt: skip
    return json.loads(done.stdout)


@AS_NOBODY
@pytest.mark.parametrize(("local", "looks", "changes"), [("owner", 403, 403), ("look", 200, 403), ("all", 200, 200)])
def test_another_user_of_this_machine_may_look_and_change_nothing(tmp_path, local, looks, changes):
    """Loopback without a secret was open to everybody: record, delete, write into the owner's 0600 config.toml."""
    with Threaded(tmp_path, f'[http]\nlocal = "{local}"\n', fps=20.0) as threaded:
        server = threaded.server
        wanted = (("GET", "/snapshot.jpg"), ("GET", "/"), ("GET", "/static/app.js"), ("POST", "/api/v1/settings"))
        answers = ask_as_nobody(server.url, *wanted, ("POST", "/api/v1/cameras/cam0/record"), ("GET", "/api/v1/logs"))
        assert [answers[path][0] for _, path in wanted[:3]] == [looks] * 3
        assert answers["/api/v1/cameras/cam0/record"][0] == answers["/api/v1/logs"][0] == changes
        assert bool(server.hub.asked) == (changes == 200)
        if local == "look":
            assert "user nobody of this machine may look only" in answers["/api/v1/cameras/cam0/record"][1]

        async def record_myself() -> tuple[int, str]:
            async with browsing(server) as browser:
                recorded = await browser.post("/api/v1/cameras/cam0/record", json={"action": "start"})
                overview = await (await browser.get("/api/v1/overview")).json()
                return recorded.status, overview["role"]

        assert threaded.call(record_myself) == (200, "owner"), "the service's own user goes on as before"


@AS_NOBODY
def test_a_connection_that_its_process_has_closed_is_not_roots(tmp_path):
    """The kernel shows user 0 for a socket without a process: whoever hung up at once would have been root."""
    hang_up = """
import socket, sys
port = int(sys.argv[1])
for _ in range(20):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"POST /api/v1/snapshot HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
                     b"Content-Length: 2\\r\\n\\r\\n{}")
"""
    with Threaded(tmp_path, fps=5.0) as threaded:
        who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        port = str(threaded.server.port)
        subprocess.run([PYTHON, "-c", hang_up, port], check=True, timeout=PATIENCE * 30, cwd="/", **who)

        async def wait_until_all_are_gone() -> None:
            async with asyncio.timeout(PATIENCE * 10):
                while threaded.server.context.connections.open:
                    await asyncio.sleep(0.02)

        threaded.call(wait_until_all_are_gone)
        assert threaded.server.hub.asked == []


SSO = (
    '[http]\ntrusted_proxies = ["127.0.0.1"]\ntrusted_header = "Remote-User"\ntrusted_owners = ["anna"]\n'
    f'token = "{OWNER}"\n'
)


def test_who_has_logged_in_at_a_trusted_proxy_is_owner_or_viewer_by_name(tmp_path):
    async def test():
        async with running(tmp_path, SSO, fps=30) as server, browsing(server) as browser:
            for user, save, look in (("anna", 200, 200), ("ben", 403, 200), ("", 401, 401)):
                person = {"X-Shmcam": "1", "X-Forwarded-For": "203.0.113.9", "Remote-User": user}
                saved = await browser.post("/api/v1/cameras/cam0/save", headers=person, json={})
                seen = await browser.get("/api/v1/overview", headers=person)
                assert (saved.status, seen.status) == (save, look), user
            by_token = await browser.post("/api/v1/snapshot", headers={"Authorization": f"Bearer {OWNER}"}, json={})
            assert by_token.status == 200

    run(test())


@AS_NOBODY
def test_a_person_of_this_machine_cannot_pretend_to_be_the_proxy(tmp_path):
    """Any program may connect from loopback and send the header; a web server does not run as a person."""
    with Threaded(tmp_path, SSO, fps=20.0) as threaded:
        lie = ASK.replace('"application/json"}', '"application/json", "X-Shmcam": "1", "Remote-User": "anna"}')
        found = ask_as_nobody(threaded.server.url, ("POST", "/api/v1/snapshot"), ("GET", "/state"), script=lie)
        assert [status for status, _ in found.values()] == [401, 401]
        assert threaded.server.hub.asked == []
