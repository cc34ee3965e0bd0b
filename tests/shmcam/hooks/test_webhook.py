"""A webhook over real HTTP: JSON, form with a file, signature, and what each answer means."""

import base64
import json
import secrets
import socket
import threading
import time
from contextlib import suppress

import msgspec
import pytest

from shmcam.hooks.attempt import Attachment, Attempt, find_attachment
from shmcam.hooks.delivery_queue import Delivery, DeliveryQueue
from shmcam.hooks.delivery_thread import DeliveryThread
from shmcam.hooks.hook import Hook
from shmcam.hooks.push_message import send_push
from shmcam.hooks.settings import ActionSettings
from shmcam.hooks.webhook import send_webhook, to_attempt
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff
from tests.shmcam.hooks.receiver import Receiver, parts_of, verify

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
PAYLOAD = b'{"event":"saved","data":{}}'


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


def send(receiver, path="/a?b=c", **more):
    receiver.got.clear()
    return send_webhook(receiver.url + path, **{"payload": PAYLOAD, "ident": "1-2", "secret": SECRET, **more})


def test_json_is_signed_as_the_standard_says(receiver):
    assert send(receiver, headers={"Authorization": "Bearer x"}) == Attempt("done", "HTTP 200")
    path, headers, body, _ = receiver.got[0]
    assert (path, body, headers["Content-Type"]) == ("/a?b=c", PAYLOAD, "application/json")
    assert headers["Authorization"] == "Bearer x" and headers["webhook-id"] == "1-2"
    assert verify(SECRET, headers, body) and not verify(SECRET, headers, body + b" ")


def test_a_file_goes_as_a_form_which_is_signed_whole(receiver, tmp_path):
    clip = tmp_path / 'a"ü.mp4'
    clip.write_bytes(secrets.token_bytes(200_001))
    file = find_attachment("clip", str(clip), None)
    assert send(receiver, file=file).state == "done"
    _, headers, body, _ = receiver.got[0]
    assert verify(SECRET, headers, body)
    parts = parts_of(headers, body)
    assert parts["event"][1:] == ("application/json", PAYLOAD)
    assert parts["file"] == ("a?.mp4", "video/mp4", clip.read_bytes())


def test_which_file_is_an_event_s(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"jpeg")
    assert find_attachment("picture", str(picture), b"x").content == picture
    assert find_attachment("picture", str(tmp_path / "a.mp4"), b"xy") == Attachment("picture.jpg", b"xy", 2)
    assert find_attachment("clip", str(picture), b"x") is None
    assert find_attachment("picture", str(tmp_path / "gone.jpg"), None) is None
    assert find_attachment("none", str(picture), b"x") is None


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((status, "done") for status in (200, 204)),
        *((status, "failed") for status in (302, 401, 404, 429, 503)),
        *((status, "refused") for status in (400, 410, 413, 422)),
    ],
)
def test_only_the_event_s_own_fault_is_final(status, state):
    assert to_attempt(status, "").state == state


def test_a_server_may_ask_for_a_pause_of_an_hour_at_most():
    assert [to_attempt(503, text).retry_after_s for text in ("7", "99999", "Wed, 21 Oct", "-1")] == [7, 3600, 0, 0]


def test_what_went_wrong_is_told_without_the_address():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/s3cret"
        assert send_webhook(url, payload=b"{}", ident="", timeout_s=0.3).text == "no answer in time"
    assert send_webhook(url, payload=b"{}", ident="").text == "Connection refused"
    assert "s3cret" not in send_webhook("http://no such host/s3cret", payload=b"{}", ident="").text
    bad = send_webhook(url, payload=b"{}", ident="", headers={"A": "s3cret\n"})
    assert bad.state == "failed" and "s3cret" not in bad.text


@pytest.mark.parametrize(
    ("drops", "text"),
    [
        ([b"HTTP/1.1 200 OK\r\nA: ", *[b"x"] * 50], "HTTP 200"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 50, "no answer in time"),
    ],
)
def test_a_server_that_drips_its_answer_is_given_up_in_time(drops, text):
    def drip(listener):
        with listener.accept()[0] as connection, suppress(OSError):
            for drop in drops:
                connection.sendall(drop)
                time.sleep(0.1)
        ended.set()

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert send_webhook(url, payload=b"{}", ident="", timeout_s=0.5).text == text
        assert not ended.is_set(), "the server has not come to its end"
        assert ended.wait(20)


def test_a_handshake_that_is_never_answered_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert send_webhook(url, payload=b"{}", ident="", timeout_s=0.3).text == "no answer in time"


def test_push_goes_through_apprise_with_a_picture(receiver):
    """apprise's own JSON service stands for the hundred others."""
    receiver.got.clear()
    address = receiver.url.replace("http", "json") + "/push"
    attempt = send_push([address], title="shmcam cam0", text="it moves", file=Attachment("p.jpg", b"jpeg", 4))
    assert attempt == Attempt("done", "1 sent")
    told = json.loads(receiver.got[0][2])
    assert (told["title"], told["message"]) == ("shmcam cam0", "it moves")
    assert base64.b64decode(told["attachments"][0]["base64"]) == b"jpeg"
    receiver.statuses.append(500)
    assert send_push([address], title="", text="x", file=None).state == "failed"


def test_an_address_that_fails_repeats_the_message_to_no_other(receiver, caplog):
    """And no key is in the log: apprise quotes an address that it cannot read."""
    receiver.got.clear()
    addresses, reached = ["slack://S3CRET", receiver.url.replace("http", "json") + "/good"], set()
    for _ in range(2):
        attempt = send_push(addresses, title="", text="x", file=None, reached=reached)
        assert attempt == Attempt("failed", "address 1 of push is none that apprise knows")
    assert len(receiver.got) == 1 and "S3CRET" not in caplog.text


def test_a_hook_remembers_which_addresses_have_its_event(receiver, tmp_path):
    receiver.got.clear()
    address = receiver.url.replace("http", "json")
    receiver.statuses += [500, 200, 200, 200, 200]
    row = ActionSettings(events=("saved",), push=(f"{address}/a", f"{address}/b"))
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        for ident in (b"1", b"2"):
            queue.put(
                [
                    Delivery(
                        "a",
                        b'{"id": "%s", "event": "saved", "camera": "", "host": "", "time_utc": "", "data": {}}' % ident,
                    )
                ],
                None,
                {"a": 9},
            )
        thread = DeliveryThread(Hook("a", row), queue, Stop())
        pauses = [thread._handle(queue.find_first("a"), Backoff(1.0, 1.0)) for _ in range(3)]
    assert [path for path, *_ in receiver.got] == ["/a", "/b", "/a", "/a", "/b"]
    assert pauses[0] > 0 and pauses[1:] == [0, 0] and thread.counts.delivered == 2


def test_the_end_of_the_process_waits_for_no_server(tmp_path):
    """What was under way is in the queue again at the next start."""
    stop, row = Stop(), ActionSettings(events=("saved",), webhook="http://127.0.0.1:1/", timeout_s=60)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        row = msgspec.structs.replace(row, webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with DeliveryQueue(tmp_path / "q", "run") as queue:
            queue.put([Delivery("a", b'{"id": "1", "event": "saved", "data": {}}')], None, {"a": 9})
            thread = DeliveryThread(Hook("a", row), queue, stop)
            thread.start()
            connection = silent.accept()[0]
            thread.ask_to_end()
            thread.join(0.1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        thread.join(20)
        connection.close()
    assert thread.counts.delivered == 1 and not stop.failed
    with DeliveryQueue(tmp_path / "q", "run") as queue:
        assert queue.count() == {"a": 1}
