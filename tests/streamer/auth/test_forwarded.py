"""Whose word counts about the client's address, host and encryption: a trusted proxy's, and nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.auth.forwarded import RequestClient, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.1", "192.168.0.0/16", "2001:db8::/64"], "Remote-User")


def client(
    peer="10.0.0.1", forwarded_for=(), host="camera:8080", is_secure=False, proxies=PROXIES, **headers
) -> RequestClient:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return proxies.find_client(peer, given, forwarded_for, host="camera:8080", is_secure=False)


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # the client invented what stands before
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),  # a second line of the header goes on with the list
        (["203.0.113.9, 192.168.7.7"], "203.0.113.9"),  # two proxies of ours, one behind the other
        (["203.0.113.9:51234"], "203.0.113.9"),
        (['"[2001:db8:1::9]:443"'], "2001:db8:1::9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["192.168.7.7"], "192.168.7.7"),
        (["6.6.6.6, unknown"], "10.0.0.1"),
        (["6.6.6.6, unknown, 192.168.7.7"], "192.168.7.7"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxy_of_ours_is_the_clients(forwarded_for, address):
    assert client(forwarded_for=forwarded_for).address == address


def test_a_proxy_tells_host_and_encryption_and_who_logged_in():
    told = client(X_Forwarded_Host="home.example", X_Forwarded_Proto="https", Remote_User="anna")
    assert told == RequestClient("10.0.0.1", "home.example", True, "anna")
    assert client(X_Forwarded_Host="evil.example, home.example").host == "home.example"
    assert client() == RequestClient("10.0.0.1", "camera:8080", False)


@pytest.mark.parametrize("peer", ["10.0.0.2", "127.0.0.1", "?", "", "2001:db8:1::1"])
def test_nobody_elses_word_counts(peer):
    lie = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https", "Remote_User": "root"}
    assert client(peer, ["1.2.3.4"], **lie) == RequestClient(peer, "camera:8080", False)
    assert client(forwarded_for=["1.2.3.4"], proxies=TrustedProxies([]), **lie) == RequestClient(
        "10.0.0.1", "camera:8080", False
    )


@given(st.lists(st.text(max_size=80), max_size=4), st.text(max_size=40))
def test_headers_of_any_text_are_read_without_an_error(lines, text):
    assert client(forwarded_for=lines, X_Forwarded_Host=text, X_Forwarded_Proto=text).address
