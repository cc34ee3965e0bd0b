"""The tables [mjpeg_server], [http] and [webrtc] of config.toml: streams, and access to them."""

from ipaddress import ip_network
from typing import Annotated, Literal

from shmcam.config.schema import Section, setting

_HOST_NAME = r"^[A-Za-z0-9.\-:\[\]]{1,253}$"
_ORIGIN = r"^https?://[A-Za-z0-9.\-:\[\]]{1,253}$"


class MjpegServerSettings(Section, frozen=True):
    """The table [mjpeg_server]: live pictures. Each value is the default of a viewer that requests nothing else."""

    enable: Annotated[bool, setting("serve HTTP at all; false leaves the process idle but up")] = True
    fps: Annotated[float, setting("most pictures a second to one viewer", unit="fps", gt=0, le=240, apply="live")] = (
        30.0
    )
    port: Annotated[
        int, setting("TCP port of the HTTP server; 0 lets the kernel choose", ge=0, le=65535, apply="file")
    ] = 8080
    quality: Annotated[int, setting("JPEG quality of the live picture", ge=10, le=100, apply="live")] = 80
    width: Annotated[
        int, setting("width of the live picture, 0 keeps the camera's", unit="pixels", ge=0, le=8192, apply="live")
    ] = 0
    max_streams: Annotated[
        int, setting("viewers of all cameras together; further ones get 503", unit="viewers", ge=1, le=2000)
    ] = 128
    max_variants: Annotated[
        int, setting("different fps/width/quality/gray/stack at once; each costs one encode a frame", ge=1, le=64)
    ] = 8
    max_sessions: Annotated[
        int, setting("WebSocket sessions of all cameras together", unit="sessions", ge=1, le=500, apply="live")
    ] = 32
    stale_after_s: Annotated[
        float, setting("a picture older than this is marked stale", unit="s", ge=0.2, le=3600, apply="live")
    ] = 3.0
    busy_cpu_percent: Annotated[
        float, setting("machine load above which viewers are slowed down", unit="%", ge=10, le=100, apply="live")
    ] = 90.0
    busy_recorder_lag_s: Annotated[
        float, setting("recorder lag above which viewers are slowed down", unit="s", ge=0.1, le=60, apply="live")
    ] = 1.0


class HttpSettings(Section, frozen=True):
    """The table [http]: the address of the server and access to it. The port is mjpeg_server.port."""

    bind: Annotated[
        str, setting("address to listen on; anything but loopback needs token or password", max_length=253)
    ] = "127.0.0.1"
    token: Annotated[
        str,
        setting("secret for programs, at least 16 characters", secret=True, max_length=256),
    ] = ""
    password: Annotated[
        str, setting("secret for people at the login page, at least 8 characters", secret=True, max_length=256)
    ] = ""
    viewer_token: Annotated[
        str,
        setting("secret for programs that may only look, at least 16 characters", secret=True, max_length=256),
    ] = ""
    viewer_password: Annotated[
        str,
        setting("secret for people who may only look, at least 8 characters", secret=True, max_length=256),
    ] = ""
    local: Annotated[
        Literal["owner", "look", "all"],
        setting(
            "without token and password, what users of this machine may do who are neither root, nor the service's "
            "user, nor in its group: nothing, look, everything",
            apply="file",
        ),
    ] = "look"
    insecure_no_auth: Annotated[
        bool, setting("let everybody in on any address; a warning is logged at each start", apply="file")
    ] = False
    tls_cert: Annotated[
        str,
        setting("certificate chain (PEM), relative to the config file; `shmcam gen-cert` makes one", max_length=4096),
    ] = ""
    tls_key: Annotated[str, setting("private key (PEM), relative to the config file", max_length=4096)] = ""
    hosts: Annotated[
        tuple[Annotated[str, setting("one host name", pattern=_HOST_NAME)], ...],
        setting("further names this server is called by (Host header), against DNS rebinding"),
    ] = ()
    origins: Annotated[
        tuple[Annotated[str, setting("one origin", pattern=_ORIGIN)], ...],
        setting("origins of other pages that may use this server (CORS) and frame it, e.g. https://home.example"),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Annotated[str, setting("one address or network", max_length=64)], ...],
        setting("reverse proxies whose X-Forwarded-For, -Host and -Proto count, e.g. 192.168.1.2 or 10.0.0.0/8"),
    ] = ()
    trusted_header: Annotated[
        str,
        setting(
            "header by which a trusted proxy names the person who has logged in there (SSO), e.g. Remote-User; the "
            "proxy must take it out of what clients send",
            pattern=r"^(|[A-Za-z][A-Za-z0-9-]{0,63})$",
        ),
    ] = ""
    trusted_owners: Annotated[
        tuple[Annotated[str, setting("one name", max_length=128)], ...],
        setting("people named so in trusted_header that are owners; the others may look"),
    ] = ()
    downloads: Annotated[
        bool | None,
        setting(
            "clips and pictures of the library may be seen and fetched; left out: yes, but not by those of whom "
            "nothing is known (other users of this machine, anybody with insecure_no_auth)",
            apply="file",
        ),
    ] = None
    max_connections: Annotated[
        int, setting("TCP connections at once; beyond it the longest idle one makes room", ge=8, le=4000)
    ] = 256
    max_connections_per_peer: Annotated[
        int, setting("TCP connections from one address other than loopback", ge=2, le=4000)
    ] = 32
    header_s: Annotated[
        float,
        setting(
            "a request's header must be complete, and an idle connection ends, within this", unit="s", ge=1, le=120
        ),
    ] = 10.0
    body_s: Annotated[float, setting("a request's body must be complete within this", unit="s", ge=1, le=120)] = 10.0
    write_s: Annotated[float, setting("a peer that takes no byte for this long is reset", unit="s", ge=1, le=120)] = 5.0
    send_buffer_kib: Annotated[int, setting("kernel send buffer per connection", unit="KiB", ge=16, le=8192)] = 256

    def __post_init__(self) -> None:
        """Refuses proxies that are no addresses, and a header that no proxy may send. Raises: ValueError."""
        if self.trusted_header and not self.trusted_proxies:
            raise ValueError("trusted_header needs trusted_proxies, the addresses of the proxies that may send it")
        for text in self.trusted_proxies:
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise ValueError(
                    f"trusted_proxies: {text!r}: must be an address or network, such as 192.168.1.2 or 10.0.0.0/8"
                ) from None


class WebRtcSettings(Section, frozen=True):
    """The table [webrtc]: live H.264 over UDP; needs the package aiortc."""

    enable: Annotated[
        bool,
        setting("serve WebRTC (WHEP) where aiortc is installed; UDP, on a port that the kernel chooses", apply="live"),
    ] = True
    max_sessions: Annotated[
        int,
        setting("viewers by WebRTC of all cameras, half of them from one address; pages take H.264 over TCP then",
                unit="sessions", ge=1, le=100, apply="live"),
    ] = 8  # fmt: skip


TABLES: dict[str, type[Section]] = {
    "mjpeg_server": MjpegServerSettings,
    "http": HttpSettings,
    "webrtc": WebRtcSettings,
}
