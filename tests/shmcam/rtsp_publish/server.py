"""An RTSP server of GStreamer that takes what is published (RECORD), run by the system's Python: prints each frame.

    python3 server.py PORT [NAME:PASSWORD [CERTIFICATE_AND_KEY.pem]]

Lines: "ready", then "frame PATH BYTES KEY" for each access unit, "refused" for a wrong password.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( rtph264depay name=depay0 "
    "! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink emit-signals=true sync=false )"
)


def say(*words: object) -> None:
    print(*words, flush=True)


def take(sink, path: str):
    buffer = sink.emit("pull-sample").get_buffer()
    key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
    say("frame", path, buffer.get_size(), int(key))
    return Gst.FlowReturn.OK


def main(port: str, person: str = "", pem: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for path in ("/cam0", "/cam1"):
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_launch(PIPELINE)
        factory.set_latency(0)
        factory.connect(
            "media-configure",
            lambda _, media, path=path: media.get_element().get_by_name("sink").connect("new-sample", take, path),
        )
        if person:
            permissions = GstRtspServer.RTSPPermissions.new()
            permissions.add_permission_for_role("publisher", "media.factory.access", True)
            permissions.add_permission_for_role("publisher", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    if person:
        auth = GstRtspServer.RTSPAuth.new()
        auth.set_supported_methods(2)  # digest
        token = GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", "publisher")
        auth.add_digest(*person.split(":"), token)
        if pem:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(pem))
        server.set_auth(auth)
    server.attach(None)
    say("ready")
    GLib.MainLoop().run()


main(*sys.argv[1:])
