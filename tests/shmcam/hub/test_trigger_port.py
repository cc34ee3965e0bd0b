"""The TCP trigger port: off and loopback by default, token, rate limit, triggers only."""

import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from shmcam.control.command_table import BY_NAME
from shmcam.control.settings import NetworkSettings
from shmcam.hub.connection import TCP_IDLE_S, PeerConnection
from shmcam.hub.router import TCP_COMMANDS, Router
from shmcam.hub.trigger_port_access import (
    ADDRESSES_MAX,
    LOG_LINES_MAX,
    LOG_WINDOW_S,
    TOKEN_WITHIN_S,
    WRONG_TOKEN_S,
    LogLimit,
    RateLimit,
    TokenCheck,
)
from tests.shmcam.hub.hubs import HubProcess, read_all, until

TOKEN = "abcdefghijklmnop0123"
REFUSED = "is not for the trigger port (network.trusted = true in config.toml lets it in)\n"


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
        assert nc(port, b"set night.enable false\n").endswith(REFUSED)
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


@pytest.fixture(scope="module")
def guarded_hub():
    port = free_port()
    with HubProcess(f'[network]\ntrigger_port = {port}\ntoken = "{TOKEN}"\n') as hub:
        hub.port = port
        yield hub


def test_a_token_is_asked_for_and_a_wrong_one_is_refused(guarded_hub):
    port = guarded_hub.port
    assert nc(port, f"token {TOKEN}\nping\n".encode()) == "pong\n"
    wrong = (b"ping\n", b"token wrong\nping\n", b"token \nping\n", b"x" * 1000, f"token {TOKEN}x\nping\n".encode())
    with ThreadPoolExecutor(len(wrong)) as threads:  # each is answered slowly
        answers = list(threads.map(lambda data: nc(port, data), wrong))
    assert set(answers) == {"ERROR: expected `token <the token of config.toml>` as the first line\n"}
    until(lambda: "wrong token from 127.0.0.1" in guarded_hub.log, "it is logged")
    assert TOKEN not in guarded_hub.log


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


NETCATS = {
    "nc.openbsd": ("nc.openbsd", "127.0.0.1"),
    "nc.traditional": ("nc.traditional", "127.0.0.1"),
    "busybox": ("busybox", "nc", "127.0.0.1"),
    "ncat": ("ncat", "127.0.0.1"),
}


@pytest.mark.parametrize("name", NETCATS)
@pytest.mark.parametrize(
    ("lines", "answer"), [("ping\n", "pong\n"), ("ping", "pong\n"), ("ping\nping\n", "pong\n" * 2)]
)
def test_plain_echo_into_any_netcat_returns_with_the_answer(name, lines, answer, trusted_port):
    """nc.traditional waited for ever: it never closes its half, and the hub waited for more lines."""
    if not shutil.which(NETCATS[name][0]):
        pytest.skip(f"{name} is not installed")
    if name == "nc.traditional" and not lines.endswith("\n"):
        pytest.skip("a line without its end, from a peer that never ends it, is no line")
    if name == "nc.openbsd" and not lines.endswith("\n"):
        pytest.skip("as above")
    command = [*NETCATS[name], str(trusted_port)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=20)
    assert done.stdout == answer, done


@pytest.fixture(scope="module")
def trusted_hub():
    port = free_port()
    with HubProcess(f"[network]\ntrigger_port = {port}\ntrusted = true\nrate_per_s = 1\n") as hub:
        hub.port = port
        yield hub


@pytest.fixture
def trusted_port(trusted_hub):
    return trusted_hub.port


def test_a_trusted_network_gets_all_commands_of_the_former_server_and_the_log_says_so(trusted_hub):
    port = trusted_hub.port
    assert "network.trusted lets everybody" in trusted_hub.log
    assert nc(port, b"set night.dark_threshold 41\n").startswith("OK: changed night.dark_threshold from 40.0 to 41.0")
    assert '"dark_threshold": 41.0' in nc(port, b"dump_config\n")
    assert nc(port, b"overwrite_config\n").startswith("OK: ")
    assert re.match(r"RSS=[\d.]+MiB SWAP=[\d.]+%\n", nc(port, b"health\n"))
    assert nc(port, b"delete 3\n").endswith(REFUSED)
    assert nc(port, b"set network.trigger_port 1\n").startswith("ERROR: network.trigger_port can only be changed in")
    other = next(address for address in addresses() if not address.startswith("127."))
    with socket.create_connection((other, port), timeout=20) as link:
        link.sendall(b"ping\n")
        assert read_all(link) == b"pong\n"


def test_a_word_without_a_line_end_is_answered_as_the_former_server_did_and_an_empty_line_too(trusted_port):
    for sent, begin in ((b"health", b"RSS="), (b"ping\nhealth", b"pong\nRSS="), (b"\n", b"UNKNOWN_COMMAND\n")):
        with socket.create_connection(("127.0.0.1", trusted_port), timeout=20) as link:
            link.sendall(sent)
            assert read_all(link).startswith(begin), sent
    with socket.create_connection(("127.0.0.1", trusted_port), timeout=20) as link:
        link.sendall(b"pi")
        time.sleep(0.1)  # how people type
        link.sendall(b"ng")
        assert read_all(link) == b"pong\n", "typed slowly"


def addresses():
    """The addresses of this machine."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    return found or pytest.skip("no address but loopback")


def test_all_lines_count_although_the_peer_closes_at_once(trusted_hub):
    """`printf 'set …\\nset …\\n' | nc -q0`: the first line was carried out, the others were forgotten."""
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", trusted_hub.port)),
        (socket.AF_UNIX, str(trusted_hub.socket)),
    ):
        for value in (33, 34):
            with socket.socket(family) as link:
                link.connect(address)
                lines = [
                    f"set night.dark_threshold {value}",
                    "set export.stack_count 3",
                    f"set export.stack_count {value}",
                ]
                link.sendall("\n".join([*lines, ""]).encode())
            first, last = f"night.dark_threshold = {value}.0", f"export.stack_count = {value}"
            until(lambda first=first: first in trusted_hub.text("get night.dark_threshold"), "the first line")
            until(lambda last=last: last in trusted_hub.text("get export.stack_count"), "the last line")


def test_a_silent_connection_is_closed_and_makes_room():
    """16 silent connections held the port for ever: each tick renewed the time that the limit was compared with."""
    router = Router(("cam0",))
    closed = []
    connection = PeerConnection(
        1,
        router,
        on_open=lambda c: True,
        on_close=closed.append,
        on_message=lambda *_: None,
        on_wrong_token=lambda c: None,
        on_drained=lambda c: None,
        trusted=False,
        token="",
    )
    transport = SimpleNamespace(
        get_extra_info=lambda name, default=None: ("10.0.0.1", 5),
        get_write_buffer_size=lambda: 0,
        set_write_buffer_limits=lambda high: None,
        is_closing=lambda: False,
        is_reading=lambda: True,
        close=lambda: closed.append("closed"),
    )
    connection.connection_made(transport)
    start_s = time.monotonic()
    for second in range(int(TCP_IDLE_S)):
        connection.tick(start_s + second)
    assert closed == []
    connection.tick(start_s + TCP_IDLE_S + 1)
    assert closed == ["closed"]


def test_idle_connections_and_half_tokens_make_room_and_end(guarded_hub):
    """16 of them kept every trigger out: for a minute each, and for ever if a byte came now and then."""
    port = guarded_hub.port
    begun = time.monotonic()
    links = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(40)]
    for link in links[-3:]:
        link.sendall(b"token abc")
    assert nc(port, f"token {TOKEN}\nping\n".encode()) == "pong\n"
    passed = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(20)]
    for link in passed[-8:]:
        link.sendall(f"token {TOKEN}\nping\n".encode())
    assert passed[-1].recv(100) == b"pong\n"
    assert nc(port, f"token {TOKEN}\nping\n".encode()) == "pong\n", "who is in and silent makes room, too"
    lazy = socket.create_connection(("127.0.0.1", port), timeout=60)
    lazy.sendall(b"tok")
    assert "token not complete within 5 s" in read_all(lazy).decode()
    assert time.monotonic() - begun >= TOKEN_WITHIN_S
    for link in (*links, *passed, lazy):
        link.close()


def test_wrong_tokens_are_answered_slowly_and_logged_a_few_times():
    """They wrote 21,081 lines into the log in 8 s."""
    port = free_port()
    with HubProcess(f'[network]\ntrigger_port = {port}\ntoken = "{TOKEN}"\n') as hub:
        begun = time.monotonic()
        assert nc(port, b"token wrong\nping\n").startswith("ERROR: expected `token")
        assert time.monotonic() - begun >= WRONG_TOKEN_S
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
                link.sendall(b"token wrong\n")
        assert nc(port, f"token {TOKEN}\nping\n".encode()) == "pong\n", "the right one is right all the same"
        assert 1 <= hub.log.count("wrong token from 127.0.0.1") <= LOG_LINES_MAX


def test_the_log_of_wrong_tokens_is_limited_and_tells_what_it_left_out():
    limit = LogLimit()
    assert [limit.admit(0.1 * n) for n in range(100)] == [0] * LOG_LINES_MAX + [None] * (100 - LOG_LINES_MAX)
    assert limit.admit(LOG_WINDOW_S) == 100 - LOG_LINES_MAX
    assert limit.admit(LOG_WINDOW_S + 1) == 0
