"""The TCP trigger port: off and loopback by default, token, rate limit, triggers only."""

import socket
import time

import pytest

from shmcam.control.command_table import BY_NAME
from shmcam.control.settings import NetworkSettings
from shmcam.hub.router import TCP_COMMANDS
from shmcam.hub.trigger_port_access import ADDRESSES_MAX, RateLimit, TokenCheck
from tests.shmcam.hub.hubs import HubProcess, read_all, until

TOKEN = "abcdefghijklmnop0123"
REFUSED = "is not for the trigger port\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nc(port, data):
    """Do as `printf … | nc host port` does."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return read_all(link).decode()


def test_it_is_off_by_default():
    with HubProcess() as hub:
        until(lambda: "trigger_port=off" in hub.log, "it is logged")


def test_it_answers_triggers_and_nothing_else():
    port = free_port()
    with HubProcess(f"[network]\ntrigger_port = {port}\n") as hub:
        assert nc(port, b"ping\n") == "pong\n"
        assert nc(port, b"SNAP\n").startswith("ERROR: exporter is not connected")
        assert nc(port, b"set night.enable false\n").endswith("is not for the trigger port\n")
        assert nc(port, b'{"command": "delete", "number": 5}\n').count("not for the trigger port") >= 1
        answer = nc(port, b"POST / HTTP/1.1\r\nHost: x\r\n\r\nping\n")
        assert answer.startswith("UNKNOWN_COMMAND POST")
        assert "pong" not in answer, "a browser's body was obeyed"
        assert hub.text("ping") == "pong"


def test_every_command_that_is_no_trigger_is_refused():
    port = free_port()
    with HubProcess(f"[network]\ntrigger_port = {port}\nrate_per_s = 1000\n"):
        others = [row.example for name, row in BY_NAME.items() if name not in TCP_COMMANDS]
        assert "delete 12" in others and len(others) > 15
        answers = [nc(port, f"{line}\n".encode()) for line in others]
        wrong = {line: answer for line, answer in zip(others, answers, strict=True) if not answer.endswith(REFUSED)}
        assert wrong == {}


def test_a_token_is_asked_for_and_a_wrong_one_is_refused():
    port = free_port()
    with HubProcess(f'[network]\ntrigger_port = {port}\ntoken = "{TOKEN}"\n') as hub:
        assert nc(port, f"token {TOKEN}\nping\n".encode()) == "pong\n"
        for wrong in (
            b"ping\n",
            b"token wrong\nping\n",
            b"token \nping\n",
            b"x" * 1000,
            f"token {TOKEN}x\nping\n".encode(),
        ):
            assert nc(port, wrong) == "ERROR: expected `token <the token of config.toml>` as the first line\n"
        until(lambda: "wrong token from 127.0.0.1" in hub.log, "it is logged")
        assert TOKEN not in hub.log


def test_too_many_commands_a_second_end_the_connection():
    port = free_port()
    with HubProcess(f"[network]\ntrigger_port = {port}\nrate_per_s = 5\n") as hub:
        begun = time.monotonic()
        answer = nc(port, b"ping\n" * 100)
        assert 5 <= answer.count("pong") <= 10 + 5 * (time.monotonic() - begun) + 1, "the burst, and the rate meanwhile"
        assert "more than 5 commands a second" in answer
        until(lambda: nc(port, b"ping\n") == "pong\n", "allowed again later")
        assert hub.text("ping") == "pong"


def test_an_open_port_without_a_token_is_refused_in_the_config():
    with pytest.raises(ValueError, match="needs a token"):
        NetworkSettings(trigger_port=9999, bind="0.0.0.0")
    NetworkSettings(trigger_port=9999, bind="0.0.0.0", token=TOKEN)
    NetworkSettings(trigger_port=9999, bind="::1")


def test_rates_are_counted_for_each_address_and_the_table_is_bounded():
    limit = RateLimit(10.0)
    assert [limit.admit("a", 0.0) for _ in range(21)].count(True) == 20
    assert limit.admit("b", 0.0)
    assert limit.admit("a", 0.2)
    for number in range(10_000):
        limit.admit(str(number), 1.0)
    assert len(limit._buckets) == ADDRESSES_MAX


@pytest.mark.parametrize("piece", [1, 5, 100])
def test_a_token_may_come_in_pieces(piece):
    check, data, out = TokenCheck(TOKEN), f"token {TOKEN}\r\nping\n".encode(), b""
    for start in range(0, len(data), piece):
        out += check.feed(data[start : start + piece])
    assert (check.is_passed, check.is_refused, out) == (True, False, b"ping\n")


def test_a_taken_port_is_told_and_the_hub_goes_on_without_until_it_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with HubProcess(f"[network]\ntrigger_port = {port}\n") as hub:
            assert hub.text("ping") == "pong"
            until(lambda: f"trigger port 127.0.0.1:{port} cannot be opened" in hub.log, "it is logged")
            taken.close()
            until(lambda: "trigger port open" in hub.log, "the port is free")
            assert nc(port, b"ping\n") == "pong\n"


def test_an_idle_stranger_does_not_hold_the_port_for_ever():
    port = free_port()
    with HubProcess(f"[network]\ntrigger_port = {port}\n"):
        links = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        time.sleep(0.2)
        assert any(b"too many connections" in link.recv(200) for link in links[16:])
        for link in links:
            link.close()
