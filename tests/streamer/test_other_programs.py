"""Programs that are not ours: how they log in, read across origins, stand behind proxies, and what names they use."""

import shutil
import subprocess
import sys

import pytest

from streamer.auth.roles import PUBLIC_PATHS
from tests.machine import PATIENCE
from tests.streamer.api.test_archives import make_archive
from tests.streamer.harness import UPGRADE, Threaded, body_of, browsing, number_in, opened, parts, raw, running
from tests.streamer.pictures.test_stream import run
from tests.streamer.test_roles import routes

TOKEN = "t" * 24
LOCKED = f'[http]\ntoken = "{TOKEN}"\n'
ORIGIN = "http://printer.example:7130"


# ---- logging in with user:password in the address


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with Threaded(tmp_path_factory.mktemp("locked"), LOCKED, fps=20.0) as threaded:
        yield threaded.server


URLLIB = """
import sys, urllib.request
url, token = sys.argv[1:]
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, url, "any", token)
opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
sys.exit(not opener.open(url + "/snapshot.jpg", timeout=30).read().startswith(b"\\xff\\xd8"))
"""
OPENCV = "import cv2, sys; sys.exit(not cv2.VideoCapture(sys.argv[1]).read()[0])"
PYAV = "import av, sys; next(av.open(sys.argv[1], timeout=30).decode(video=0))"
CLIENTS = {
    "curl -u": lambda url: ["curl", "-sf", "-o", "/dev/null", "-u", f"any:{TOKEN}", f"http://{url}/snapshot.jpg"],
    "curl --anyauth": lambda url: [
        *("curl", "-sf", "-o", "/dev/null", "--anyauth", "-u", f"any:{TOKEN}", f"http://{url}/snapshot.jpg")
    ],
    "wget": lambda url: [
        *("wget", "-q", "-O", "/dev/null", "--tries=1", "--user=any", f"--password={TOKEN}"),
        f"http://{url}/snapshot.jpg",
    ],
    "ffprobe": lambda url: ["ffprobe", "-v", "error", f"http://any:{TOKEN}@{url}/stream"],
    "urllib": lambda url: [sys.executable, "-c", URLLIB, f"http://{url}", TOKEN],
    "PyAV": lambda url: [sys.executable, "-c", PYAV, f"http://any:{TOKEN}@{url}/stream"],
    "OpenCV": lambda url: [sys.executable, "-c", OPENCV, f"http://any:{TOKEN}@{url}/stream"],
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_program_that_waits_for_a_challenge_gets_in(locked, name):
    """ffmpeg, wget, urllib and others sent no password, as the 401 named Bearer alone."""
    command = CLIENTS[name](f"127.0.0.1:{locked.port}")
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 30)
    assert done.returncode == 0, done.stderr


def test_each_challenge_has_a_line_of_its_own_and_a_script_of_a_browser_gets_no_dialog(tmp_path):
    async def test():
        async with running(tmp_path, LOCKED) as server, browsing(server) as browser:

            async def challenges(**headers) -> list[str]:
                answer = await browser.get("/snapshot.jpg", headers=headers)
                assert answer.status == 401
                return [value.partition(" ")[0] for value in answer.headers.getall("WWW-Authenticate")]

            assert await challenges() == ["Basic", "Bearer"]
            assert await challenges(Authorization="Basic YTpi") == ["Basic", "Bearer"], "a wrong one may try again"
            for page in ({"X-Shmcam": "1"}, {"Origin": "http://camera"}, {"Cookie": "shmcam_pass=1.2.3"}):
                assert await challenges(**page) == ["Bearer"]

    run(test())


# ---- other origins


def test_a_listed_origin_may_read_answers_of_every_kind_and_no_other_may(tmp_path):
    async def test():
        text = f'[http]\norigins = ["{ORIGIN}", "https://Home.example:443"]\n'
        async with running(tmp_path, text, fps=30) as server, browsing(server) as browser:
            for path in ("/snapshot.jpg", "/api/v1/cameras", "/", "/api/v1/nowhere", "/snapshot.jpg?width=1"):
                for origin in (ORIGIN, "https://home.example"):
                    headers = (await browser.get(path, headers={"Origin": origin})).headers
                    assert headers["Access-Control-Allow-Origin"] == origin, path
                    assert headers["Access-Control-Allow-Credentials"] == "true"
                    assert "X-Frame-Id" in headers["Access-Control-Expose-Headers"]
                for origin in ("http://evil.example", "null", f"{ORIGIN}.evil.example", "http://printer.example", "*"):
                    headers = (await browser.get(path, headers={"Origin": origin})).headers
                    assert not [name for name in headers if name.startswith("Access-Control")], (path, origin)
                    assert headers["Vary"] == "Origin", "a cache must not give it to another page"
            stream = (await opened(server, "/stream", f"Origin: {ORIGIN}\r\n"))[1]
            assert stream["access-control-allow-origin"] == ORIGIN
            page = (await browser.get("/")).headers
            assert page["Content-Security-Policy"].endswith(f"frame-ancestors 'self' {ORIGIN} https://home.example")
            assert "X-Frame-Options" not in page

    run(test())


def test_a_preflight_is_answered_without_a_secret_for_listed_origins_only(tmp_path):
    async def test():
        async with running(tmp_path, f'{LOCKED}origins = ["{ORIGIN}"]\n') as server, browsing(server) as browser:
            asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

            async def preflight(origin: str, **more):
                return await browser.options("/api/v1/snapshot", headers={"Origin": origin, **asks, **more})

            answer = await preflight(ORIGIN)
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            allowed = answer.headers["Access-Control-Allow-Headers"].lower()
            assert {"content-type", "authorization", "x-shmcam"} <= set(allowed.split(", "))
            private = await preflight(ORIGIN, **{"Access-Control-Request-Private-Network": "true"})
            assert private.headers["Access-Control-Allow-Private-Network"] == "true"
            refused = await preflight("http://evil.example")
            assert (refused.status, refused.headers.get("Access-Control-Allow-Origin")) == (403, None)
            body = {"headers": {"Origin": ORIGIN, "Authorization": f"Bearer {TOKEN}"}, "json": {}}
            assert (await browser.post("/api/v1/snapshot", **body)).status == 200
            unknown = await browser.post("/api/v1/snapshot", headers={"Origin": ORIGIN}, json={})
            assert (unknown.status, unknown.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)

    run(test())


# ---- old programs, and programs behind a proxy


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /snapshot.jpg HTTP/1.0\r\n", 200),
        (b"GET /snapshot.jpg HTTP/1.0\r\nHost: evil.example\r\n", 421),
        (b"GET /snapshot.jpg HTTP/1.1\r\nConnection: close\r\n", 400),
        (b"POST /api/v1/snapshot HTTP/1.0\r\nOrigin: http://evil\r\nContent-Type: application/json\r\n", 403),
    ],
)
def test_http_1_0_without_host_is_served_as_no_browser_sends_it(tmp_path, request_line, status):
    async def test():
        async with running(tmp_path, fps=30) as server:
            answer = await raw(server.port, request_line + b"\r\n")
            assert int(answer.split()[1]) == status
            assert status == 200 or body_of(answer)["status"] == status

    run(test())


def test_no_other_site_opens_a_websocket(tmp_path):
    async def test():
        async with running(tmp_path, fps=30) as server:
            for path in ("/ws", "/ws/live"):
                assert await upgraded(server, path, "http://evil.example") == "403", path
                assert await upgraded(server, path, f"http://127.0.0.1:{server.port}") != "403", path
            assert await upgraded(server, "/ws", f"http://127.0.0.1:{server.port}") == "101"

    run(test())


async def upgraded(server, path, origin):
    return (await opened(server, path, f"{UPGRADE}Origin: {origin}\r\n"))[0].split()[1]


def test_behind_a_trusted_proxy_the_clients_own_address_host_and_encryption_count(tmp_path):
    async def test():
        text = '[http]\npassword = "correct horse"\nhosts = ["home.example"]\ntrusted_proxies = ["127.0.0.0/8"]\n'
        async with running(tmp_path, text, fps=30) as server, browsing(server) as browser:
            proxied = {
                "X-Forwarded-Host": "home.example",
                "X-Forwarded-Proto": "https",
                "Origin": "https://home.example",
            }
            login = await browser.post(
                "/api/v1/login", json={"secret": "correct horse"}, headers={**proxied, "X-Forwarded-For": "203.0.113.9"}
            )
            assert (login.status, "Secure" in login.headers["Set-Cookie"]) == (204, True)
            evil = await browser.get("/", headers={"X-Forwarded-Host": "evil.example"})
            assert evil.status == 421
            for _ in range(6):
                await browser.get("/state?token=wrong", headers={"X-Forwarded-For": "203.0.113.66"})
            braked = await browser.get("/state?token=wrong", headers={"X-Forwarded-For": "203.0.113.66"})
            free = await browser.get("/state?token=wrong", headers={"X-Forwarded-For": "203.0.113.9"})
            assert (braked.status, free.status) == (429, 401), "guesses count for their own address"
            secret = "Authorization: Bearer correct horse\r\n"
            await opened(server, "/stream", f"{secret}X-Forwarded-For: 203.0.113.9\r\n")
            assert [entry.peer for entry in server.context.viewers.entries.values()] == ["203.0.113.9"]

    run(test())


# ---- names of other programs


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        ("/?action=stream_0", 0),
        ("/?action=stream_1", 1),
        ("/cam/cam1/stream?action=stream_0", 1),
        ("/stream?key=abc&extra_headers=1&dual_final_frames=1&zero_data=0", 0),  # ustreamer's words
    ],
)
def test_streams_under_the_names_of_other_programs(tmp_path, path, camera):
    async def test():
        async with running(tmp_path, cameras=("cam0", "cam1")) as server:
            chosen = list(server.cameras.values())[camera]
            _, _, reader, _ = await opened(server, path)
            number = chosen.publish()
            _, body = await anext(parts(reader))
            assert number_in(body) == number
            assert chosen.fanout.viewers == 1

    run(test())


def test_snapshots_under_the_names_of_other_programs_and_inputs_that_are_not_there(tmp_path):
    async def test():
        async with running(tmp_path, cameras=("cam0", "cam1"), fps=30) as server, browsing(server) as browser:
            for action in ("snapshot", "snapshot_0", "snapshot_1"):
                answer = await browser.get(f"/?action={action}&n=1700000000")
                assert (answer.status, answer.content_type) == (200, "image/jpeg")
                assert answer.headers["ETag"].startswith('"cam1-' if action.endswith("1") else '"cam0-')
            for action in ("snapshot_2", "stream_9", "stream_x", "stream_-1", "snapshot_99999999999"):
                answer = await browser.get(f"/?action={action}")
                assert (answer.status, "there is: 0..1" in (await answer.json())["reason"]) == (404, True), action
            assert (await browser.get("/?action=dance")).status == 400

    run(test())


QUERIES = {"/api/v1/library/zip": "?ids=1", "/api/v1/archives/trial_7/file": "?file=config.toml"}
FILES = {
    "/api/v1/library/1/file",
    *QUERIES,
    "/api/v1/archives/trial_7/zip",
    "/snapshot.jpg",
    "/static/app.js",
    "/stream",
}


def test_no_answer_to_head_has_a_body(tmp_path):
    """A HEAD of a zip brought all of it; on the same connection it stood where the next answer was expected."""

    async def test():
        async with running(tmp_path, fps=30) as server:
            make_archive(tmp_path, "trial_7")
            paths = {path for method, path in routes().values() if method == "GET"} | PUBLIC_PATHS
            paths = {path.replace("/archives/app.js", "/archives/trial_7") for path in paths}
            for path in sorted(paths | {"/?action=stream", "/?action=snapshot"}):
                query = QUERIES.get(path, "")
                line = "HTTP/1.1\r\nHost: localhost"
                answer = await raw(
                    server.port,
                    f"HEAD {path}{query} {line}\r\n\r\nGET /state {line}\r\nConnection: close\r\n\r\n".encode(),
                )
                head, _, rest = answer.partition(b"\r\n\r\n")
                assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), (path, head, rest[:80])
                assert head.startswith(b"HTTP/1.1 200 ") or path not in FILES, (path, head)

    run(test())
