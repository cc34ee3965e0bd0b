"""A process's connection to the hub, when the hub comes and goes and threads cross."""

import logging
import os
import threading

import pytest

from shmcam.control.client import ControlClient, Delegation
from shmcam.control.client_connection import WakeUp
from shmcam.control.messages import NightBegan, NightEnded, Reply, Saved
from tests.shmcam.hub.hubs import HubProcess, until


def test_a_wake_up_that_is_closed_while_others_set_it_touches_no_other_file(tmp_path):
    """The number of a closed descriptor is soon another file's: setting it wrote eight bytes into that."""
    wake_up, stop = WakeUp(), threading.Event()
    number = wake_up.fileno()

    def set_often():
        while not stop.is_set():
            wake_up.set()

    threads = [threading.Thread(target=set_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    with (tmp_path / "other").open("wb") as other:
        wake_up.close()
        os.dup2(other.fileno(), number)
        wake_up.set()
        wake_up.close()
        stop.set()
        for thread in threads:
            thread.join(10)
        os.close(number)
    assert (tmp_path / "other").read_bytes() == b""


def test_an_announcement_after_the_end_is_harmless():
    with HubProcess() as hub:
        with ControlClient("analyzer", socket_path=hub.socket) as control:
            until(lambda: control.is_connected, "connected")
        control.announce(NightBegan(camera="cam0"))
        assert list(control.receive()) == []


def test_a_hub_that_is_only_restarted_is_no_warning_and_one_that_stays_away_is(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="shmcam.control.client_connection")
    monkeypatch.setattr("shmcam.control.client_connection.WARN_AFTER_S", 60.0)  # a busy machine starts a hub in 3 s
    with HubProcess() as hub, ControlClient("analyzer", socket_path=hub.socket) as control:
        until(lambda: control.is_connected, "connected")
        hub.kill()
        until(lambda: not control.is_connected, "noticed")
        hub.start()
        until(lambda: control.is_connected, "back")
        assert "gone" not in caplog.text
        monkeypatch.setattr("shmcam.control.client_connection.WARN_AFTER_S", 0.2)
        hub.kill()
        until(lambda: "hub gone for" in caplog.text, "told")
    assert caplog.text.count("hub gone") == 1


def test_events_of_a_long_absence_of_the_hub_arrive_once_and_in_order():
    """The newest 64 were sent first, and the hub dropped all older ones as seen; nothing was counted as lost."""
    with HubProcess() as hub:
        subscriber = ControlClient("exporter", socket_path=hub.socket, subscribe=("all",))
        announcer = ControlClient("recorder", socket_path=hub.socket)
        announcer.announce(NightBegan(camera="cam0"))  # retained, so sent with each connection
        paths = [f"/{number}.jpg" for number in range(200)]
        for path in paths:
            announcer.announce(Saved(camera="cam0", path=path, kind="jpg"))
        received = []
        with subscriber:
            until(lambda: subscriber.is_connected, "connected")
            with announcer:
                until(
                    lambda: received.extend(subscriber.receive()) or len(received) >= 201,
                    lambda: f"received {len(received)}",
                )
                announcer.announce(NightEnded(camera="cam0"))
                until(lambda: received.extend(subscriber.receive()) or len(received) >= 202, "the last one")
        assert [request.message.path for request in received if isinstance(request.message, Saved)] == paths
        assert isinstance(received[0].message, NightBegan) and isinstance(received[-1].message, NightEnded)
        assert announcer.lost_count == 0


def test_requests_are_handled_while_the_loop_waits_and_by_the_loop_else():
    """`night_level` was answered with the next frame: six seconds later at night."""
    requests, handled_in = ["before"], []

    def handle():
        while requests:
            requests.pop()
            handled_in.append(threading.current_thread().name)

    def come(name):
        requests.append(name)
        thread = threading.Thread(target=waits.handle, name="connection")
        thread.start()
        thread.join(10)

    waits = Delegation(handle, lambda: bool(requests))
    come("while the loop works")
    assert handled_in == []
    with waits:
        assert handled_in == ["MainThread", "MainThread"]
        come("while it waits")
        assert handled_in[2:] == ["connection"]
    assert waits.has_handled
    with waits:
        pass
    assert not waits.has_handled


def test_a_wait_for_requests_delegates_them_too_and_ends_when_they_are_handled():
    """The exporter's answers waited until its loop had gone round."""
    handled_in = []
    with HubProcess() as hub, ControlClient("exporter", socket_path=hub.socket, commands=("pictures",)) as control:

        def handle():
            for request in control.receive():
                handled_in.append(threading.current_thread().name)
                request.reply(Reply(text="answered"))

        control.delegate(handle)
        asking = threading.Thread(target=lambda: [hub.text("pictures") for _ in range(20)])
        until(lambda: control.is_connected, "connected")
        asking.start()
        while asking.is_alive():
            control.wait(0.1)
            handle()
        asking.join()
    assert len(handled_in) == 20 and handled_in.count("control") >= 10


def nested(depth):
    value = "deep"
    for _ in range(depth):
        value = [value]
    return value


ODD_ANSWERS = {
    "a name that is no Unicode": (Reply(text="Saved /caf\udce9.jpg"), r"Saved /caf\xe9.jpg"),
    "nested too deep": (Reply(data={"deep": nested(5000)}), "ERROR: the answer cannot be sent: "),
    "nested as deep as msgpack goes": (Reply(data={"deep": nested(480)}), "ok"),
    "nested deep": (Reply(data={"deep": nested(100)}), "ok"),
    "beyond 64 bits": (Reply(data={"n": 2**80}), "ok"),
    "too long": (Reply(data={"rows": ["x" * 1000] * 2000}), "ERROR: the answer is 2006079 bytes long"),
    "not a number": (Reply(data={"n": [float("nan"), float("inf")]}), "ok"),
    "keys that are numbers": (Reply(data={"n": {1: 2}}), "ok"),
    "keys that are lists": (Reply(data={"n": {(1, 2): 3}}), "ok"),
    "bytes": (Reply(data={"n": b"\xff\xfe"}), "ok"),
    "a text that is none": (Reply(text=5), "ERROR: exporter gave an answer that cannot be read: reply: text: expected"),
    "data that is none": (Reply(data=[1]), "ERROR: exporter gave an answer that cannot be read: reply: data: expected"),
}


def test_an_answer_that_cannot_be_sent_is_an_error_for_who_asked_and_for_nobody_else():
    """Who asked waited ten minutes, or the process that answered lost its connection."""
    with HubProcess() as hub, ControlClient("exporter", socket_path=hub.socket, commands=("pictures",)) as control:
        until(lambda: control.is_connected, "connected")
        with hub.connect() as other:
            for answer, text in ODD_ANSWERS.values():
                for ask in (lambda: hub.text("pictures"), lambda: hub.json({"command": "pictures", "id": 7})):
                    replies = []
                    asking = threading.Thread(target=lambda ask=ask, replies=replies: replies.append(ask()))
                    asking.start()
                    until(lambda: control.wait(0.1), "asked")
                    for request in control.receive():
                        request.reply(answer)
                    asking.join(5)
                    [reply] = replies
                    if isinstance(reply, str):
                        assert reply.startswith(text)
                    else:
                        assert reply["id"] == 7 and (reply["type"] == "error") == text.startswith("ERROR")
            other.sendall(b"ping\n")
            assert other.recv(100) == b"pong\n"
        assert control.is_connected and "left program=exporter" not in hub.log
        assert control.lost_count == 2, "the one nested too deep, asked for twice"


def test_a_request_that_fails_while_the_loop_waits_fails_in_the_loop():
    requests = [1]

    def handle():
        raise OSError("no space left")

    waits = Delegation(handle, lambda: bool(requests))
    frames = waits.iterate(iter("abc"))
    with pytest.raises(OSError, match="no space left"):
        next(frames)


def test_what_is_waited_for_ends_as_it_would():
    waits = Delegation(lambda: None, lambda: False)
    assert list(waits.iterate(iter("abc"))) == ["a", "b", "c"]
