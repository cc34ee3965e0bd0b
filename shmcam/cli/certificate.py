"""`shmcam gen-cert` makes a self-signed certificate for this machine with the openssl program.

With it pictures and passwords cross the network encrypted; browsers warn about it once. For a host name of your own
take a certificate of an authority instead and name its files in [http].
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shmcam.cli.options import whole_number
from shmcam.runtime.atomic_files import open_atomic

DAYS = 825
"""The longest validity that Apple's and Chromium's verifiers accept."""

DAYS_MAX = 36_500
"""A hundred years; openssl refuses an end after the year 9999, without words."""

HOST_NAME = r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,250}[A-Za-z0-9])?"
"""A host name (RFC 1123) or wildcard (RFC 6125), and the underscores of home networks; a comma would begin another."""

OPENSSL_TIMEOUT_S = 60.0


class CertificateError(RuntimeError):
    """The certificate was not made; the message says why and what would help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Makes certificate and key; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if not 1 <= options.days <= DAYS_MAX:
        parser.error(f"--days {options.days}: must be 1 to {DAYS_MAX}")
    for name in options.name:
        if not re.fullmatch(HOST_NAME, name) and not _is_address(name):
            parser.error(f"--name {name}: must be a host name of A-Z a-z 0-9 . - (others as xn--…), or an address")
    try:
        cert, key = make_certificate(options.folder, names_of(options.name), days=options.days, force=options.force)
    except CertificateError as problem:
        print(f"gen-cert: {problem}", file=sys.stderr)
        return 1
    print(f"made {cert} and {key}; put into config.toml and restart the streamer:\n")
    print(f'[http]\ntls_cert = "{cert}"\ntls_key = "{key}"')
    return 0


def make_certificate(folder: Path, alternatives: list[str], *, days: int, force: bool) -> tuple[Path, Path]:
    """Writes `cert.pem` and `key.pem` (0600) into a folder, both or none. Raises: CertificateError."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not force and (cert.exists() or key.exists()):
        raise CertificateError(f"{cert if cert.exists() else key} exists already; --force replaces it")
    if shutil.which("openssl") is None:
        raise CertificateError("the program openssl is missing; try: sudo apt install openssl")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".gen-cert-") as name:
        temporary = Path(name)
        _run_openssl(temporary / "cert.pem", temporary / "key.pem", alternatives, days)
        for source, target, mode in ((temporary / "key.pem", key, 0o600), (temporary / "cert.pem", cert, 0o644)):
            with open_atomic(target, replace=force, mode=mode) as file:
                file.write(source.read_bytes())
    return cert, key


def names_of(further: Sequence[str]) -> list[str]:
    """Returns the names and addresses of a certificate as openssl writes them: `further`, and those of this machine."""
    host = socket.gethostname()
    names = dict.fromkeys([*further, "localhost", host, f"{host}.local", "127.0.0.1", "::1"])
    return [f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names]


def _run_openssl(cert: Path, key: Path, alternatives: list[str], days: int) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", str(days), "-subj", "/CN=shmcam"]
    command += ["-addext", f"subjectAltName={','.join(alternatives)}", "-addext", "extendedKeyUsage=serverAuth"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=OPENSSL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CertificateError(f"openssl did not finish within {OPENSSL_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise CertificateError(f"openssl failed: {done.stderr.strip()[-300:]}")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of what stands behind `shmcam gen-cert`."""
    parser = argparse.ArgumentParser(prog="shmcam gen-cert", description="Make a self-signed certificate for HTTPS.")
    parser.add_argument(
        "--folder", type=Path, default=Path("tls"), metavar="DIR", help="where to put cert.pem and key.pem"
    )
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="further host name or address; may be repeated"
    )
    parser.add_argument("--days", type=whole_number, default=DAYS, metavar="DAYS", help="how long it is valid")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
