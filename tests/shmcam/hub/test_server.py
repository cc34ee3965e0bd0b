"""A real hub process on its real socket: socat, half-closed connections, floods, peers that never read, restarts."""

import asyncio
import contextlib
import json
import os
import random
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import pytest

from shmcam.control.call import call
from shmcam.control.client import ControlClient
from shmcam.control.codec import COMPLETE_WITHIN_S, encode
from shmcam.control.messages import CHUNK_BYTES_MAX, Chunk, Hello, NightBegan, Reply, Save, Saved, Snapshot
from shmcam.hub.server import CONNECTIONS_MAX
from shmcam.hub.unix_socket import UnixListener, is_listening
from tests.machine import needs, within
from tests.shmcam.hub.hubs import HubProcess, Reader, read_all, until

ALONE = Path("/proc/self/uid_map").read_text().split()[-1] == "1"
"""Whether this user namespace knows no other user."""


@pytest.fixture(scope="module")
def hub():
    with HubProcess() as running:
        yield running


def client_of(hub, role, *commands, **more):
    return ControlClient(role, socket_path=hub.socket, commands=commands, **more)


def serve(client, answer):
    """Answer every command of a client in a thread until it closes."""

    def loop():
        while client.serving:
            client.wait(0.05)
            for request in client.receive():
                answer(request)
            client.beat()

    client.serving = True
    thread = threading.Thread(target=loop, daemon=True)  # a test that failed does not stop it
    thread.start()

    def stop():
        client.serving = False
        thread.join()

    return stop


@needs("socat")
def test_socat_gets_its_answer_although_it_half_closes(hub):
    command = ["socat", "-t10", "-", f"UNIX-CONNECT:{hub.socket}"]
    assert subprocess.run(command, input=b"ping\n", capture_output=True, timeout=60).stdout == b"pong\n"
    assert subprocess.run(command, input=b"ping", capture_output=True, timeout=60).stdout == b"pong\n"
    output = subprocess.run(command, input=b"savee\nping\n", capture_output=True, timeout=60).stdout.decode()
    assert output == "UNKNOWN_COMMAND savee; did you mean save?\npong\n"
    helped = subprocess.run(command, input=b"help\n", capture_output=True, timeout=60).stdout.decode()
    assert "pastStack" in helped


def test_a_slow_answer_still_reaches_a_half_closed_connection_and_in_order(hub):
    def slowly(request):
        time.sleep(0.3)  # the slowness that is tested
        request.reply(Reply(status="saved", text="Saved single full-resolution image: /x.jpg"))

    with client_of(hub, "exporter", "save") as exporter:
        until(lambda: exporter.is_connected, "exporter connected")
        stop = serve(exporter, slowly)
        assert hub.text("save\nping") == "Saved single full-resolution image: /x.jpg\npong"
        stop()


def test_a_script_that_pipes_many_commands_gets_every_answer(hub):
    with client_of(hub, "exporter", "save") as exporter:
        until(lambda: exporter.is_connected, "exporter connected")
        stop = serve(exporter, lambda request: request.reply(Reply(status="saved", text="ok")))
        assert hub.text("save\n" * 1500).split() == ["ok"] * 1500
        stop()


def test_no_more_is_read_than_can_wait(hub):
    with client_of(hub, "exporter", "save") as exporter, hub.connect() as link:
        until(lambda: exporter.is_connected, "exporter connected")
        link.settimeout(1.0)
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                link.sendall(b"save\n" * 200)
        assert hub.text("ping") == "pong"


def test_all_three_dialects_reach_the_same_command(hub):
    seen = []

    def answer(request):
        seen.append(request.message)
        request.reply(Reply(status="saved", text="ok", data={"path": "/x.jpg"}))

    with client_of(hub, "exporter", "save", "snapshot") as exporter:
        until(lambda: exporter.is_connected, "exporter connected")
        stop = serve(exporter, answer)
        assert hub.text("save cam0 jpg") == "ok"
        answer = hub.json({"command": "take_snapshot", "camera_id": 0, "formats": ["jpg"], "id": 7})
        assert (answer["type"], answer["status"], answer["data"]["path"], answer["id"]) == (
            "status",
            "snapshot_taken",
            "/x.jpg",
            7,
        )
        assert call(hub.socket, Save(camera="cam0", formats=("jpg",))).data == {"path": "/x.jpg"}
        stop()
    save = Save(camera="cam0", formats=("jpg",))
    assert seen == [save, Snapshot(cameras=("cam0",), formats=("jpg",)), save]


def test_shortstream_bytes_arrive_raw_in_text_and_through_call(hub):
    def answer(request):
        request.reply(Chunk(data=b"\x00\x00\x00\x03abc"))
        request.reply(Chunk(data=b"\x00\x00\x00\x00", end=True))
        request.reply(Reply(status="stream_done", text="STREAM_DONE: sent=1, skipped=0, available=1"))

    with client_of(hub, "streamer", "short_stream") as streamer:
        until(lambda: streamer.is_connected, "streamer connected")
        stop = serve(streamer, answer)
        whole = hub.exchange(b"shortstream 1\n")
        assert whole == b"\x00\x00\x00\x03abc\x00\x00\x00\x00STREAM_DONE: sent=1, skipped=0, available=1\n"
        pieces = []
        assert call(hub.socket, "shortstream 1", on_chunk=pieces.append).status == "stream_done"
        assert b"".join(pieces) == b"\x00\x00\x00\x03abc\x00\x00\x00\x00"
        stop()


def test_a_reader_that_is_slower_than_the_streamer_gets_all_of_a_shortstream(hub):
    """It was dropped after two unsent megabytes, as one that does not read: `shortstream 100` over Wi-Fi."""
    size = 4_000_000

    def answer(request):
        for _ in range(0, size, CHUNK_BYTES_MAX):
            until(lambda: request.reply(Chunk(data=bytes(CHUNK_BYTES_MAX))), "room for a chunk")
        request.reply(Reply(status="stream_done", text="STREAM_DONE"))

    with client_of(hub, "streamer", "short_stream") as streamer, socket.socket(socket.AF_UNIX) as link:
        until(lambda: streamer.is_connected, "streamer connected")
        stop = serve(streamer, answer)
        link.connect(str(hub.socket))
        link.sendall(b"shortstream 20\n")
        count, tail = 0, b""
        while not tail.endswith(b"STREAM_DONE\n"):
            data = link.recv(32 * 1024)
            assert data, f"closed after {count} bytes"
            count, tail = count + len(data), data[-20:]
            time.sleep(0.05)  # 0.6 MB/s: slower than the streamer
        assert count >= size and hub.text("ping") == "pong"
        stop()


def test_events_reach_subscribers_of_every_dialect(hub):
    with client_of(hub, "analyzer") as analyzer, hub.connect() as text, hub.connect() as lines, hub.connect() as packed:
        until(lambda: analyzer.is_connected, "analyzer connected")
        text.sendall(b"subscribe night\n")
        lines.sendall(b'{"command": "subscribe", "topics": ["night"]}\n')
        packed.sendall(msgpack.packb({"message": "subscribe", "topics": ["night"], "id": 1}))
        readers = Reader(text), Reader(lines), Reader(packed)
        assert readers[0].line() == b"subscribed to mode_changed, night_began, night_ended"
        assert readers[1].object()["status"] == "subscribed"
        assert readers[2].message()["status"] == "subscribed"
        analyzer.announce(NightBegan(camera="cam0", score=9.5))
        assert b" night_began camera=cam0 score=9.5" in readers[0].line()
        event = readers[1].object()
        assert (event["type"], event["event"], event["data"]["score"]) == ("event", "night_began", 9.5)
        assert readers[2].message()["message"] == "night_began"


def test_the_socket_is_for_owner_and_group_only(hub):
    assert stat.S_IMODE(hub.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(hub.socket.parent.stat().st_mode) == 0o750


@needs("socat")
@pytest.mark.skipif(os.getuid() != 0 or ALONE, reason="only root can become another user")
def test_another_user_is_refused(hub):
    hub.folder.chmod(0o755)
    command = ["socat", "-t10", "-", f"UNIX-CONNECT:{hub.socket}"]
    tried = subprocess.run(command, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=60)
    assert b"Permission denied" in tried.stderr


def test_a_second_hub_is_refused_and_the_first_untouched(hub):
    command = [sys.executable, "-m", "shmcam.hub", "--config", str(hub.config)]
    assert subprocess.run(command, timeout=90).returncode == 75
    assert f"another hub is using {hub.socket} (pid {hub.process.pid})" in hub.log
    assert hub.text("ping") == "pong"


def test_a_stale_socket_is_replaced():
    running = HubProcess()
    with running:
        running.kill()
        assert running.socket.exists()
        running.start()
        assert running.text("ping") == "pong"
        assert running.stop() == 0
        assert not running.socket.exists()


def test_a_deleted_socket_file_comes_back(hub):
    hub.socket.unlink()
    until(hub.socket.exists, "the socket file is back")
    assert hub.text("ping") == "pong"


def test_whoever_sees_the_socket_file_can_connect(tmp_path, monkeypatch):
    """Between bind and listen a client was refused: seen once, on a crowded machine."""
    seen = []

    def listen(self, *backlog):
        seen.append((tmp_path / "control.sock").exists())
        real(self, *backlog)

    async def opened():
        listener = UnixListener(tmp_path / "control.sock")
        await listener.open(asyncio.Protocol)
        is_listening_now = is_listening(listener.path)
        listener.close()
        return is_listening_now

    real = socket.socket.listen
    monkeypatch.setattr(socket.socket, "listen", listen)
    assert asyncio.run(opened()) and seen and not any(seen)
    assert not list(tmp_path.glob("*.sock")) and not list(tmp_path.glob("*.new"))


def test_an_incomplete_message_ends_the_connection(hub):
    with hub.connect() as link:
        link.sendall(b"\x81\xa7mess")
        begun = time.monotonic()
        assert b"not complete within 5 s" in read_all(link)
        assert time.monotonic() - begun > COMPLETE_WITHIN_S - 1.0


def test_idle_connections_make_room_for_people_and_processes(hub):
    """128 of them kept everybody out, the service's own processes too, for as long as they liked."""
    links = []
    try:
        for number in range(CONNECTIONS_MAX + 3):
            links.append(hub.connect())
            if number % 20 == 0:
                hub.text("ping")  # or the queue of connections not yet accepted overflows
        assert b"closed to make room" in read_all(links[0]), "the one that was silent longest"
        assert call(hub.socket, "ping").ok
        with client_of(hub, "analyzer") as analyzer:
            until(lambda: analyzer.is_connected, "a process finds a place")
    finally:
        for link in links:
            link.close()
    until(lambda: hub.text("ping") == "pong", "room again")


def test_subscribers_leave_the_last_places_to_processes_of_ours(hub):
    """A subscriber is never closed for another one; but who takes a place beyond the last must be one of ours."""
    links = []
    try:
        for _ in range(CONNECTIONS_MAX):
            links.append(hub.connect())
            links[-1].sendall(b"subscribe saved\n")
            assert Reader(links[-1]).line().startswith(b"subscribed to")
        with client_of(hub, "analyzer") as analyzer:
            until(lambda: analyzer.is_connected, "a process finds a place")
            assert hub.text("ping") == "pong", "and so does a quick question"
            links.append(hub.connect())
            assert b"too many connections" in read_all(links[-1]), "but nobody who stays"
            assert analyzer.is_connected
    finally:
        for link in links:
            link.close()
    until(lambda: hub.text("ping") == "pong", "room again")


def test_subscribers_that_went_away_make_room_and_half_closed_ones_stay(hub):
    with client_of(hub, "analyzer") as analyzer, hub.connect() as half_closed:
        half_closed.sendall(b"subscribe saved night\n")
        half_closed.shutdown(socket.SHUT_WR)
        reader = Reader(half_closed)
        assert reader.line().startswith(b"subscribed to")
        for _ in range(CONNECTIONS_MAX + 3):
            with hub.connect() as link, contextlib.suppress(OSError):
                link.sendall(b"subscribe saved\n")
                link.recv(100)
        until(lambda: call(hub.socket, "ping").ok, "room again")
        until(lambda: analyzer.is_connected, "analyzer connected")
        analyzer.announce(NightBegan(camera="cam0"))
        assert b"night_began" in reader.line()


def test_a_killed_process_that_subscribed_leaves_the_status(hub):
    def is_shown():
        return "tester" in [row["program"] for row in rows(hub)]

    with hub.connect() as link:
        link.sendall(encode("msgpack", Hello(role="tester", pid=os.getpid(), subscribe=("night",))))
        until(is_shown, "it is shown")
    until(lambda: not is_shown(), "it is gone")


def test_a_peer_that_never_reads_is_dropped_and_others_do_not_notice(hub):
    before = hub.rss_bytes()
    with hub.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        sent, end = 0, time.monotonic() + 120
        while time.monotonic() < end:
            try:
                sent += deaf.send(b"help\n" * 200)
            except BlockingIOError:
                time.sleep(0.02)
            except (BrokenPipeError, ConnectionResetError):
                break
            assert hub.text("ping") == "pong"
        else:
            raise AssertionError("still connected")
    assert hub.rss_bytes() - before < 16 << 20
    until(lambda: "does not read" in hub.log or "takes nothing" in hub.log, "it is logged")


def test_events_a_slow_subscriber_loses_are_counted_and_told(hub):
    with client_of(hub, "analyzer") as analyzer, hub.connect() as slow:
        until(lambda: analyzer.is_connected, "analyzer connected")
        slow.sendall(b'{"command": "subscribe", "topics": ["night"]}\n')
        reader = Reader(slow)
        reader.object()
        total = 0
        for _ in range(60):
            for _ in range(100):
                analyzer.announce(NightBegan(camera="cam0", reason="x" * 250))
                total += 1
            time.sleep(0.01)
        until(lambda: not analyzer._connection._out, "everything sent")
        got = lost = 0
        while got + lost + analyzer.lost_count < total:
            message = reader.object()
            lost += message["data"]["count"] if message["event"] == "events_lost" else 0
            got += message["event"] == "night_began"
        assert got + lost + analyzer.lost_count == total
        assert lost > 0


GARBAGE = (
    lambda rng: rng.randbytes(rng.randrange(1, 300)),
    lambda rng: b"{" + rng.randbytes(rng.randrange(1, 100)).replace(b"\n", b" ") + b"\n",
    lambda rng: bytes(rng.choices(b"abcdef {}[]\"'=\\,.:;\x00\xff", k=rng.randrange(1, 60))) + b"\n",
    lambda rng: msgpack.packb({"message": rng.choice(["save", "hello", "set", 5, None]), "x": rng.random()}),
    lambda rng: b"\x81\xa1a" + b"\xdc\x01\x00" * rng.randrange(1, 2000),
    lambda rng: (
        json.dumps({"command": rng.choice(["set", "save", []]), "changes": {"a": rng.random()}}).encode() + b"\n"
    ),
)


def flood(hub, messages, seed):
    """Send malformed messages over many connections; return the round trips of a valid client meanwhile, in seconds."""
    print(f"seed={seed}")
    rng, trips, sent = random.Random(seed), [], 0
    with hub.connect() as valid:
        reader = Reader(valid)
        while sent < messages:
            with hub.connect() as link:
                link.settimeout(20)
                kind = rng.choice(GARBAGE)
                try:
                    for _ in range(rng.randrange(1, 60)):
                        link.sendall(kind(rng))
                        sent += 1
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it had enough of us
            begun = time.perf_counter()
            valid.sendall(b"ping\n")
            assert reader.line() == b"pong"
            trips.append(time.perf_counter() - begun)
    return sorted(trips)


@pytest.mark.parametrize("messages", [5_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_malformed_messages_crash_nothing_grow_nothing_and_delay_nobody(messages):
    with HubProcess() as hub:
        flood(hub, 500, seed=1)  # first errors import and cache
        before = hub.rss_bytes()
        trips = flood(hub, messages, seed=20261121)
        grown = hub.rss_bytes() - before
        print(f"messages={messages} grown={grown / 1e6:.2f} MB p99={trips[int(len(trips) * 0.99)] * 1e3:.2f} ms")
        assert grown <= 5 << 20
        assert hub.process.poll() is None
        assert "Traceback" not in hub.log


def test_a_killed_hub_comes_back_and_all_reconnect():
    with HubProcess() as hub:
        clients = [client_of(hub, f"role{n}", "save" if n == 0 else "clips", subscribe=("night",)) for n in range(8)]
        for client in clients:
            client.__enter__()
        until(lambda: all(client.is_connected for client in clients), "all connected")
        clients[1].announce(NightBegan(camera="cam0"))
        until(lambda: "NIGHT" in hub.text("cameras"), "the hub knows it is night")
        hub.kill()
        until(lambda: not any(client.is_connected for client in clients), "all noticed")
        clients[1].announce(NightBegan(camera="cam0", score=1.0))
        hub.start()
        with within(2.0):  # docs/control.md
            until(lambda: all(client.is_connected for client in clients), "all reconnected")
        until(lambda: "NIGHT" in hub.text("cameras"), "the hub knows again")
        requests = []
        until(
            lambda: requests.extend(clients[2].receive()) or any(r.message.score == 1.0 for r in requests),
            "event passed on",
        )
        for client in clients:
            client.__exit__(None, None, None)


def test_each_event_arrives_once_and_in_order_although_the_hub_is_killed_again_and_again(seed=20261129):
    """An announcement around a hub's restart was lost, or came twice, depending on who connected first."""
    rng = random.Random(seed)
    with HubProcess() as hub, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(hub, f"role{n}", subscribe=("saved",))) for n in range(5)]
        until(lambda: all(client.is_connected for client in clients), "all connected")
        received = [[] for _ in clients]
        announced = [[] for _ in clients]

        def announce(count):
            for _ in range(count):
                number = rng.randrange(len(clients))
                announced[number].append(f"/{number}/{len(announced[number])}.jpg")
                clients[number].announce(Saved(camera="cam0", path=announced[number][-1], kind="jpg"))

        def all_received():
            for seen, client in zip(received, clients, strict=True):
                seen += [request.message.path for request in client.receive()]
            return all(len(seen) >= sum(map(len, announced)) for seen in received)

        for _ in range(4):
            announce(10)
            hub.kill()
            announce(10)
            hub.start()
            announce(10)
            until(lambda: all(client.is_connected for client in clients), "all reconnected")
            announce(5)
        until(all_received, lambda: f"received {[len(seen) for seen in received]} of {sum(map(len, announced))}")
        for seen in received:
            for number, paths in enumerate(announced):
                assert [path for path in seen if path.startswith(f"/{number}/")] == paths
            assert len(seen) == sum(map(len, announced))


def test_without_a_hub_a_client_never_blocks_and_counts_what_it_drops(tmp_path):
    with ControlClient("analyzer", socket_path=tmp_path / "none.sock") as client:
        for _ in range(300):
            client.announce(NightBegan(camera="cam0"))
            client.beat()
            assert list(client.receive()) == []
        assert client.lost_count == 44
        assert not client.is_connected


def test_call_explains_a_missing_hub(tmp_path):
    reply = call(tmp_path / "none.sock", "ping")
    assert (reply.ok, reply.status) == (False, "no_hub")
    assert "try: shmcam run" in reply.text


def test_a_loop_that_hangs_is_silent_until_it_goes_on(hub):
    with client_of(hub, "analyzer") as analyzer:
        until(lambda: analyzer.is_connected, "connected")
        stop = serve(analyzer, lambda request: None)
        row = until(lambda: next((r for r in rows(hub) if r["state"] == "running"), None), "beats arrive")
        assert row["program"] == "analyzer"
        assert row["rss_bytes"] > 0
        stop()
        until(
            lambda: next((r for r in rows(hub) if r["program"] == "analyzer"), {}).get("state") == "silent",
            "silence seen",
        )
        stop = serve(analyzer, lambda request: None)
        until(lambda: [r for r in rows(hub) if (r["program"], r["state"]) == ("analyzer", "running")], "gone again")
        stop()


def rows(hub):
    return hub.json({"command": "get_status"})["data"]["processes"]


def test_bytes_of_one_message_may_come_one_by_one(hub):
    with hub.connect() as link:
        for byte in encode("msgpack", Save(), 5):
            link.sendall(bytes([byte]))
        assert Reader(link).message()["id"] == 5


def test_what_a_killed_hub_left_half_written_is_removed_and_nothing_else(tmp_path):
    hub = HubProcess()
    (hub.folder / "run/programs").mkdir(parents=True)
    left = [
        hub.folder / name for name in (".config.toml.4711.part", "run/.changes.json.12.part", "run/programs/.a.1.part")
    ]
    others = [hub.folder / name for name in ("film.part", ".mine.part", "run/x.4711.part")]
    for path in (*left, *others):
        path.write_text("half")
    with hub:
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in others)
