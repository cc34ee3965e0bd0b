"""The process at a real mosquitto: what it survives, what it never loses, and what it says about it."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shmcam.control.client import ControlClient
from shmcam.control.messages import NightBegan, Saved
from shmcam.mqtt import broker_connection
from shmcam.mqtt.broker_connection import BrokerLink, explain, subscribe
from shmcam.mqtt.outbox import Outbox, Outgoing
from shmcam.mqtt.settings import MqttSettings
from shmcam.mqtt.topics import Topics
from shmcam.runtime.timers import Backoff
from tests.machine import Deadline, needs, until
from tests.shmcam.mqtt.brokers import MOSQUITTO, Listener, Mosquitto, MqttProcess

pytestmark = [pytest.mark.skipif(MOSQUITTO is None, reason="not installed: mosquitto"), needs("openssl")]


def connected(process):
    row = process.row()
    return row["figures"].get("connected") and row


def reason_of(process):
    return process.row().get("reason", "")


def paths_in(listener, topic="shmcam/pi/event/saved"):
    return [json.loads(payload)["data"]["path"] for payload in listener.payloads(topic)]


def test_no_event_is_lost_over_restarts_of_the_broker_up_to_the_bound():
    with Mosquitto() as broker, MqttProcess(broker, queue=50) as process:
        until(lambda: connected(process), 20, lambda: process.log)
        exporter = ControlClient("exporter", socket_path=process.hub.socket)
        with Listener(broker, "shmcam/pi/event/#") as listener, exporter:
            until(lambda: exporter.is_connected, 10, "the hub")
            sent = []

            def save(count):
                for _ in range(count):
                    sent.append(f"/{len(sent)}")
                    exporter.announce(Saved(camera="cam0", path=sent[-1]))

            save(5)
            until(lambda: paths_in(listener) == sent, 10, "five events")
            broker.kill()
            save(20)
            until(lambda: process.row()["figures"]["queued"] >= 20, 20, lambda: process.row())
            assert process.row()["state"] == "waiting"
            assert f"127.0.0.1:{broker.port}: " in reason_of(process)
            broker.start()
            until(lambda: set(sent) <= set(paths_in(listener)), 40, lambda: process.log)
            broker.kill()
            save(80)
            until(lambda: process.row()["figures"]["unpublished"] >= 30, 20, lambda: process.row())
            until(lambda: process.row()["figures"]["queued"] == 50, 20, lambda: process.row())
            figures = process.row()["figures"]
            assert figures["published"] + figures["unpublished"] + figures["queued"] == len(sent)
            broker.start()
            until(lambda: set(sent[-50:]) <= set(paths_in(listener)), 40, lambda: process.log)
            assert not set(sent[-80:-50]) & set(paths_in(listener))
            first = json.loads(listener.payloads("shmcam/pi/event/saved")[0])
            assert {"device": "pi", "event": "saved"}.items() <= first.items()
            ids = {json.loads(payload)["id"] for payload in listener.payloads("shmcam/pi/event/saved")}
            assert len(ids) == len(sent) - 30  # an event that comes twice has one id


def test_only_the_events_that_are_wanted_are_published():
    with Mosquitto() as broker, MqttProcess(broker, events=["pictures"]) as process:
        until(lambda: connected(process), 20, lambda: process.log)
        with Listener(broker) as listener, ControlClient("exporter", socket_path=process.hub.socket) as exporter:
            exporter.announce(NightBegan(camera="cam0"))
            exporter.announce(Saved(camera="cam0", path="/a"))
            until(lambda: paths_in(listener), 20, "the picture")
            assert not listener.payloads("shmcam/pi/event/night_began")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        command = [
            "openssl",
            "req",
            "-x509",
            *key,
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    request = ["openssl", "req", *key[:-2], "-subj", "/CN=localhost", "-keyout", "broker.key", "-out", "broker.csr"]
    subprocess.run(request, cwd=folder, check=True, capture_output=True)
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    sign = ["openssl", "x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"]
    sign += ["-extfile", "names", "-out", "broker.pem"]
    subprocess.run(sign, cwd=folder, check=True, capture_output=True)
    (folder / "plain").write_text("cam:a-secret-word\n")
    subprocess.run(["mosquitto_passwd", "-U", "plain"], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_and_password_and_what_is_said_when_one_of_them_is_wrong(certificates):
    config = "\n".join(
        [
            "allow_anonymous false",
            f"password_file {certificates}/plain",
            f"certfile {certificates}/broker.pem",
            f"keyfile {certificates}/broker.key",
        ]
    )
    secret = {"username": "cam", "password": "a-secret-word"}
    right = {"host": "localhost", "tls": True, "tls_ca": str(certificates / "ca.pem"), **secret}
    with Mosquitto(config) as broker, MqttProcess(broker, **right) as process:
        until(lambda: connected(process), 20, lambda: process.log)
        with Listener(broker, ca=str(certificates / "ca.pem"), **secret) as listener:
            until(lambda: listener.retained.get("shmcam/pi/availability") == b"online", 10, "online")
        assert "a-secret-word" not in process.hub.exchange(b"dump_config\n").decode()
        assert '"***"' in process.hub.exchange(b"dump_config toml\n").decode()
        text = process.hub.config.read_text()
        for wrong, said in (
            (text.replace("a-secret-word", "another"), "ot authorized; check mqtt.username and mqtt.password"),
            (text.replace("ca.pem", "other.pem"), "certificate of the server: "),
            (text.replace("ca.pem", "gone.pem"), "No such file"),
            (text.replace('"localhost"', '"no-such-host.invalid"'), "no-such-host.invalid"),
        ):
            process.kill()
            process.hub.config.write_text(wrong)
            process.start()
            until(lambda said=said: said in reason_of(process), 30, lambda: process.log)
            assert process.row()["state"] == "waiting"
        assert "a-secret-word" not in process.log


def test_old_topics_of_ours_are_removed_and_those_of_others_stay():
    ours = json.dumps({"origin": {"name": "shmcam"}})
    theirs = json.dumps({"origin": {"name": "zigbee2mqtt"}})
    with Mosquitto() as broker, Listener(broker) as listener:
        for topic, payload in (
            ("shmcam/pi/camera/cam9/state", "{}"),
            ("homeassistant/device/pi/cam9/config", ours),
            ("homeassistant/device/pi/lamp/config", theirs),
            ("homeassistant/device/other/cam9/config", ours),
            ("shmcam/other/camera/cam9/state", "{}"),
            ("shmcam/pi/command", "ping"),
            ("shmcam/pi/camera/cam0/save/set", "PRESS"),
        ):
            listener.publish(topic, payload, retain=True)
        with MqttProcess(broker) as process:
            until(lambda: listener.retained.get("homeassistant/device/pi/cam9/config") == b"", 20, lambda: process.log)
            until(lambda: listener.retained.get("shmcam/pi/camera/cam9/state") == b"", 20, lambda: process.log)
            assert listener.ask("shmcam/pi/command", "ping")["text"] == "pong"
            until(lambda: process.row()["figures"].get("commands") == 1, 10, "one command, without the retained ones")
            assert "retained command ignored" in process.log
        with Listener(broker) as later:
            later.publish("behind", "")  # a broker sends first what is retained
            until(lambda: later.payloads("behind"), 10, "what is retained")
            kept = {topic for topic, payload in later.retained.items() if "cam9" in topic or "lamp" in topic}
        assert kept == {
            "homeassistant/device/pi/lamp/config",
            "homeassistant/device/other/cam9/config",
            "shmcam/other/camera/cam9/state",
        }


@pytest.mark.slow
def test_two_machines_of_one_name_are_told_apart_by_the_reason():
    with Mosquitto() as broker, MqttProcess(broker) as first:
        until(lambda: connected(first), 20, lambda: first.log)
        with MqttProcess(broker):
            until(
                lambda: "is another client called shmcam-pi? each machine needs" in reason_of(first),
                20,
                lambda: first.log,
            )


def test_a_kill_is_seen_by_the_last_will_and_a_stop_by_a_goodbye():
    with (
        Mosquitto() as broker,
        Listener(broker, "shmcam/pi/availability") as listener,
        MqttProcess(broker) as process,
    ):
        for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
            until(lambda: listener.messages[-1:] == [("shmcam/pi/availability", b"online")], 20, "online")
            assert process.kill(number) == code
            until(lambda: listener.messages[-1][1] == b"offline", 20, "offline")
            process.start()


@pytest.mark.slow
def test_a_broker_that_hangs_costs_nothing_and_is_left():
    with Mosquitto() as broker, MqttProcess(broker) as process:
        until(lambda: connected(process), 20, lambda: process.log)
        broker.process.send_signal(signal.SIGSTOP)
        until(lambda: "no answer in time" in reason_of(process), 30, lambda: process.log)
        assert process.row()["state"] == "waiting"
        broker.process.send_signal(signal.SIGCONT)
        until(lambda: connected(process), 40, lambda: process.log)


def test_a_dead_hub_leaves_the_device_there_and_its_cameras_not():
    with Mosquitto() as broker, MqttProcess(broker, health_s=1) as process, Listener(broker) as listener:
        until(
            lambda: listener.retained.get("shmcam/pi/camera/cam0/availability") == b"offline", 20, lambda: process.log
        )
        process.hub.kill()
        answer = listener.ask("shmcam/pi/command", "ping")
        assert (answer["ok"], answer["status"]) == (False, "no_hub")
        until(lambda: listener.json("shmcam/pi/health").get("problems") == ["the hub does not answer"], 40, "health")
        assert listener.retained["shmcam/pi/availability"] == b"online"


def test_what_the_broker_does_not_take_is_left_out_and_named_and_events_come_all_the_same():
    with Mosquitto("allow_anonymous true\nmax_packet_size 1100") as broker, MqttProcess(broker) as process:
        until(lambda: connected(process), 20, lambda: process.log)
        with (
            Listener(broker, "shmcam/pi/event/#", "shmcam/reply/#") as listener,
            ControlClient("exporter", socket_path=process.hub.socket) as exporter,
        ):
            until(lambda: exporter.is_connected, 10, "the hub")
            exporter.announce(Saved(camera="cam0", path="/" + "x" * 1000))
            exporter.announce(Saved(camera="cam0", path="/a"))
            until(lambda: paths_in(listener) == ["/a"], 20, lambda: process.log)
            until(lambda: "the broker takes 1100; make images smaller" in reason_of(process), 10, lambda: process.row())
            answer = listener.ask("shmcam/pi/command", "help")
            assert (answer["ok"], answer["status"]) == (False, "too_long")
            until(lambda: process.row()["figures"]["unpublished"] == 1, 10, lambda: process.row())
            figures = process.row()["figures"]
            assert (figures["connections"], figures["published"], figures["queued"]) == (1, 1, 0)
            assert process.row()["state"] == "running"


def test_a_host_that_is_no_name_is_a_reason_and_costs_nothing():
    with Mosquitto() as broker, MqttProcess(broker, host="a..b") as process:
        until(lambda: "a..b:" in reason_of(process), 20, lambda: process.log)
        assert process.process.poll() is None


def test_the_reason_is_what_the_broker_says_when_it_ends_the_connection():
    problem = aiomqtt.MqttError("Disconnected during message iteration")
    problem.__cause__ = aiomqtt.MqttCodeError(ReasonCode(PacketTypes.DISCONNECT, "Packet too large"))
    assert explain(ExceptionGroup("", [problem])).startswith("[code:149] Packet too large; make images smaller")


def test_what_the_broker_does_not_let_us_write_is_a_reason(tmp_path):
    (tmp_path / "acl").write_text("topic read shmcam/#\ntopic write shmcam/+/health\n")
    tmp_path.chmod(0o755)
    with (
        Mosquitto(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}") as broker,
        MqttProcess(broker) as process,
    ):
        until(lambda: "does not take what we publish (Not authorized)" in reason_of(process), 20, lambda: process.log)


MALFORMED = {
    "a topic that ends too soon": b"\x30\x02\x00\x09",
    "an unknown property": b"\x30\x06\x00\x01a\x02\x7f\x00",
    "a SUBACK of nothing": b"\x90\x00",
    "a length without an end": b"\x30\xff\xff\xff\xff\xff",
    "no packet at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_mqtt_ends_the_connection_and_nothing_else(packet, monkeypatch):
    """Right after the broker's first word, and in the place of answers."""
    monkeypatch.setattr("shmcam.mqtt.broker_connection.ANSWER_S", 0.2)
    monkeypatch.setattr(Backoff, "next_delay_s", lambda _self: 0.0)
    servers = []

    async def serve(reader, writer):
        servers.append(writer)
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + packet * (len(servers) % 2))
        while await reader.read(1000):
            writer.write(packet)

    async def connect_for_a_while():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            settings = MqttSettings(port=server.sockets[0].getsockname()[1])
            link = BrokerLink(settings, Path(), Topics("shmcam", "pi"), Outbox(10), lambda _message: None)
            task = asyncio.create_task(link.run())
            deadline = Deadline(20)
            while len(servers) < 4 and not task.done():
                assert not deadline.has_passed(), f"{len(servers)} connections: {deadline}"
                await asyncio.sleep(0.01)
            assert not task.done(), task.exception()
            await link.say_goodbye()
            task.cancel()
            assert (await asyncio.wait([task], timeout=20))[0], "it ends"

    asyncio.run(connect_for_a_while())


def test_an_end_is_not_lost_to_a_connection_that_fails_while_it_ends(monkeypatch):
    """A connection that failed in the instant of the cancellation told of its own error only, and the next one came."""
    monkeypatch.setattr(Backoff, "next_delay_s", lambda _self: 0.0)

    async def serve(reader, writer):
        writer.write(b"\x20\x03\x00\x00\x00")
        while await reader.read(1000):
            pass

    async def end_while_it_fails():
        exchanging = asyncio.Event()

        async def exchange(*_):
            try:
                exchanging.set()
                await asyncio.sleep(60)  # until it is cancelled
            except asyncio.CancelledError:
                raise aiomqtt.MqttError("Unexpected disconnection") from None

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            settings = MqttSettings(port=server.sockets[0].getsockname()[1])
            link = BrokerLink(settings, Path(), Topics("shmcam", "pi"), Outbox(10), lambda _message: None)
            monkeypatch.setattr(link, "_exchange", exchange)
            task = asyncio.create_task(link.run())
            await exchanging.wait()
            await link.say_goodbye()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            task.cancel()
            assert done

    asyncio.run(end_while_it_fails())


def test_refused_subscriptions_are_named():
    class Broker:
        async def subscribe(self, topics):
            return [
                ReasonCode(PacketTypes.SUBACK, "Not authorized" if "all" in topic else "Granted QoS 1")
                for topic, _ in topics
            ]

    refused = asyncio.run(subscribe(Broker(), ["shmcam/all/command", "shmcam/pi/command"], SubscribeOptions(qos=1)))
    assert refused == ["shmcam/all/command (Not authorized)"]


def test_a_state_that_is_too_long_is_told_until_it_fits_and_an_event_is_no_state(monkeypatch, tmp_path):
    """One event that was too long stood in the status as what is wrong until another one of its kind came."""

    async def publish(_client, _message):
        pass

    monkeypatch.setattr(broker_connection, "publish", publish)

    async def send():
        link = BrokerLink(MqttSettings(), tmp_path, Topics("shmcam", "pi"), Outbox(10), lambda _message: None)
        refusals = [False] * 3 + [True]
        client = SimpleNamespace(packet_bytes_max=100, refusal="Not authorized", take_refusal=refusals.pop)
        link._client = client
        link.reason = ""
        assert not await link._publish(client, Outgoing("event", b"a")) and "(Not authorized)" in link.reason
        assert await link._publish(client, Outgoing("event", b"a")) and link.reason == ""
        assert not await link._publish(client, Outgoing("event", bytes(200))) and link.reason == ""
        assert not await link._publish(client, Outgoing("image", bytes(200), retain=True))
        assert "image: 221 bytes left out" in link.reason
        assert await link._publish(client, Outgoing("event", b"short")) and link.reason
        assert await link._publish(client, Outgoing("image", b"", retain=True)) and link.reason == ""

    asyncio.run(send())
