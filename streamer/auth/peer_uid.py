"""The users of this machine: whose process is at the other end of a loopback connection, and who is an owner.

The owners are those who may use the control socket, too: root, the user that the service runs as, and the members of
its group. The kernel tells the user of a connection by the client's own socket in /proc/net/tcp (proc_pid_net(5)).
"""

from __future__ import annotations

import os
import pwd
import struct
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from shmcam.network.peer_address import plain_address

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

FIRST_PERSON_UID = 1000
"""Debian gives people numbers from here on; web servers run below (adduser.conf(5), FIRST_UID)."""

_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9
"""Columns of /proc/net/tcp."""


class LocalUsers:
    """The owners among the users of this machine."""

    def __init__(self, uid: int, gid: int) -> None:
        """`uid`, `gid`: those of the service."""
        self._uid, self._gid = uid, gid

    def is_owner(self, uid: int) -> bool:
        """Returns whether this user may do everything."""
        if uid in {0, self._uid}:
            return True
        try:
            user = pwd.getpwuid(uid)
            return self._gid in os.getgrouplist(user.pw_name, user.pw_gid)
        except (KeyError, OSError):  # no such user, or the service that knows it does not answer
            return False

    def is_proxy(self, uid: int) -> bool:
        """Returns whether a reverse proxy may run as this user; a person's program on loopback is taken for none."""
        return uid < FIRST_PERSON_UID or self.is_owner(uid)

    def explain(self, uid: int | None) -> str:
        """Returns why this user may only look, and what would help."""
        who = "another user of this machine" if uid is None else f"user {_name_of(uid)} of this machine"
        return (
            f"{who} may look only: shmcam runs as user {_name_of(self._uid)}. Join its group, log in with a password "
            '(http.password), or set http.local = "all" in config.toml'
        )


def find_uid(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Returns the user of the process that has this connection open at its client's end; None if it is not seen.

    `client` and `server`: address and port of the two ends, as our own socket shows them.
    """
    wanted = {(_to_hex(c, client[1]), _to_hex(s, server[1])) for c, s in _spellings(client[0], server[0])}
    for table in TABLES:
        with suppress(OSError), table.open() as lines:
            for line in lines:
                row = line.split()
                # A socket that its process has closed has inode 0, and then the kernel shows root as its user.
                if len(row) > _INODE and (row[_LOCAL], row[_REMOTE]) in wanted and row[_INODE] != "0":
                    return int(row[_UID])
    return None


def _spellings(client: str, server: str) -> list[tuple[str, str]]:
    """Returns both addresses as each table may show them: an IPv4 connection may use sockets of IPv6."""
    pair = plain_address(client), plain_address(server)
    plain = (str(pair[0]), str(pair[1]))
    both_v4 = all(isinstance(address, IPv4Address) for address in pair)
    return [plain, (f"::ffff:{plain[0]}", f"::ffff:{plain[1]}")] if both_v4 else [plain]


def _to_hex(address: str, port: int) -> str:
    """Returns an address and port as the kernel prints them: 32-bit words in the byte order of this machine."""
    packed = ip_address(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
