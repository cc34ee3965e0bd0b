"""The process mqtt with peers that are none: its end while a resolver hangs, and its words."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiomqtt
import pytest

from shmcam.mqtt.broker_connection import explain, open_client
from shmcam.mqtt.settings import MqttSettings
from tests.machine import until, within

PROGRAM = """
import socket, sys, time
from pathlib import Path
ask = socket.getaddrinfo
def wait(host, *more, **named):
    if host != "broker.example":
        return ask(host, *more, **named)
    Path("asked").touch()
    time.sleep(60)
socket.getaddrinfo = wait
from shmcam.mqtt.__main__ import main
sys.argv = ["mqtt"]
sys.exit(main())
"""


def test_a_resolver_that_does_not_answer_keeps_the_process_from_nothing(tmp_path):
    (tmp_path / "config.toml").write_text('[mqtt]\nenable = true\nhost = "broker.example"\n')
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until((tmp_path / "asked").exists, 20)
        with within(2.0):
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


async def _connect(**settings) -> str:
    client = open_client(MqttSettings(host="127.0.0.1", **settings), Path(), "x")
    client.timeout = 0.3
    try:
        async with client:
            return "connected"
    except aiomqtt.MqttError as problem:
        return explain(problem)


@pytest.mark.parametrize(
    ("sent", "tls", "words"),
    [(b"", False, "no answer in time"), (b"HTTP/1.1 400 Bad\r\n\r\n", True, "no TLS there: wrong version number")],
)
def test_a_peer_that_is_no_broker_is_told_in_words(sent, tls, words):
    """They were Python's: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        async def run() -> str:
            task = asyncio.create_task(_connect(port=port, tls=tls))
            peer = (await asyncio.to_thread(listening.accept))[0]
            with peer:
                peer.sendall(sent)
                return await task

        assert asyncio.run(run()) == words
    assert asyncio.run(_connect(port=port)) == "Connection refused"


def test_ctrl_c_ends_fleet_at_once_while_a_broker_is_silent(tmp_path):
    """It took the handshake's rest, 5 s, and printed a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (tmp_path / "config.toml").write_text(f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\ntls = true\n')
        command = [sys.executable, "-m", "shmcam.mqtt.fleet", "--config", str(tmp_path / "config.toml"), "list"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            with listening.accept()[0]:
                with within(2.0):
                    process.send_signal(signal.SIGINT)
                    _, said = process.communicate(timeout=60)
                assert (process.returncode, said) == (130, "")
        finally:
            process.kill()
            process.wait()
