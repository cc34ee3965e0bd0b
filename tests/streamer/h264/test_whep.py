"""WebRTC by WHEP: aiortc itself as the viewer, on a real connection; the rules beside."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from msgspec.structs import replace
from yarl import URL

from shm_ring import Flags, FrameMeta
from shm_ring.records.packets import Unit
from shmcam.control.messages import Watch
from shmcam.imaging import frame_number_code
from shmcam.runtime.clock import now_ns
from shmcam.video.annexb import find_parameter_sets, to_annexb, to_avcc
from streamer.h264 import whep
from streamer.h264.live_video import KEY_PERIOD_S, LiveFeed, LiveVideo
from streamer.h264.routes import request_live_packets
from streamer.h264.viewers import UNITS_MAX, RtpVideoViewer
from streamer.h264.webrtc_sessions import find_offer_problem, remove_candidates
from streamer.settings import WebRtcSettings
from tests.streamer.h264.test_live import INIT_SEGMENT, SETS, piece
from tests.streamer.harness import browsing, eventually, running, soon
from tests.streamer.pictures.test_stream import run

WIDTH, HEIGHT, FPS = 320, 240, 50
OFFERED = {"Content-Type": "application/sdp"}
OFFER = """v=0\r
m=video 9 UDP/TLS/RTP/SAVPF 102\r
a=candidate:1 1 udp 2113937151 192.0.2.77 55456 typ host\r
a=recvonly\r
a=rtpmap:102 H264/90000\r
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r
a=end-of-candidates\r
"""
KEYS = f"""a=mid:0\r
a=ice-ufrag:umbr\r
a=ice-pwd:ella4711ella4711ella4711\r
a=fingerprint:sha-256 {":".join(["AB"] * 32)}\r
a=setup:actpass\r
a=rtcp-mux\r
"""
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=recvonly\r\na=rtpmap:0 PCMU/8000\r\n"


class Encoder:
    """Delivers numbered frames as the recorder and the feed do; a key frame only first and when it is asked for."""

    def __init__(self, server) -> None:
        self.server, self.live = server, server.camera.live_video
        self.codec = av.CodecContext.create("libx264", "w")
        self.codec.width, self.codec.height, self.codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        self.codec.time_base = Fraction(1, 1_000_000)
        params = "keyint=100000:scenecut=0:repeat-headers=1:annexb=1"
        self.codec.options = {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x264-params": params}
        self.feed = LiveFeed(self.live, None, loop=None, stop=None)
        self.number, self.keys_asked = 0, 0

    def encode(self) -> None:
        watches = [one for one in self.server.hub.asked if isinstance(one, Watch)]
        self.server.hub.asked.clear()
        key = any(one.key for one in watches)
        self.keys_asked += key
        picture = np.full((HEIGHT * 3 // 2, WIDTH), 120, np.uint8)
        frame_number_code.draw(picture[:HEIGHT], self.number)
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        captured = now_ns()
        frame.pts, frame.time_base = captured // 1000, self.codec.time_base
        frame.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
        for packet in self.codec.encode(frame):
            flags = int(Flags.KEY) if packet.is_keyframe else 0
            meta = FrameMeta(self.number, captured, time.time_ns(), flags=flags)
            unit = Unit(bytes(packet), meta, captured // 1000, 1_000_000 // FPS, WIDTH, HEIGHT, 1)
            self.feed._mux(unit, lambda work, *given: work(*given))
        self.number += 1

    async def run(self) -> None:
        while True:
            self.encode()
            await asyncio.sleep(1 / FPS)


class LossyRelay(asyncio.DatagramProtocol):
    """Stands between viewer and server as a bad network does: every n-th packet of media to the viewer is lost."""

    def __init__(self, server: tuple[str, int], lost_every: int) -> None:
        self.server, self.lost_every = server, lost_every
        self.viewer: tuple[str, int] | None = None
        self.media = 0

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address != self.server:
            self.viewer = address
            self.transport.sendto(data, self.server)
        elif self.viewer is not None:
            self.media += data[0] >= 128  # RTP and RTCP, not STUN and DTLS (RFC 7983)
            if data[0] < 128 or self.media % self.lost_every:
                self.transport.sendto(data, self.viewer)


@asynccontextmanager
async def serving(folder, text: str = "", **more):
    """A server whose camera encodes, and that asks the (pretended) hub for packets."""
    async with running(folder, text, fps=30, **more) as server:
        server.encoder = Encoder(server)
        tasks = [asyncio.create_task(work) for work in (server.encoder.run(), request_live_packets(server.context))]
        try:
            yield server
        finally:
            for task in tasks:
                task.cancel()


class Player:
    """A viewer: aiortc with a track that decodes."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTransceiver("video", direction="recvonly")

    async def play(self, browser, path: str = "/whep", lost_every: int = 0) -> str:
        """POST the offer; `lost_every`: through a relay. Returns: the address of the session."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        answer = await browser.post(path, data=self.peer.localDescription.sdp, headers=OFFERED)
        assert (answer.status, answer.content_type) == (201, "application/sdp"), await answer.text()
        text = await answer.text()
        if lost_every:
            found = re.search(r"^a=candidate:\S+ 1 udp \d+ (127\.\S+|\d+\.\S+) (\d+) typ host", text, re.MULTILINE)
            host, port = found[1], int(found[2])
            relay = LossyRelay((host, port), lost_every)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: relay, local_addr=(host, 0)
            )
            text = "\r\n".join(line for line in text.splitlines() if not line.startswith("a=candidate"))
            text += f"\r\na=candidate:1 1 udp 2130706431 {host} {transport.get_extra_info('sockname')[1]} typ host\r\n"
        await self.peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
        return str(answer.url.join(URL(answer.headers["Location"])))

    async def numbers(self, count: int) -> list[int | None]:
        track = self.peer.getReceivers()[0].track
        frames = [await soon(track.recv(), 30) for _ in range(count)]
        return [frame_number_code.read(frame.to_ndarray(format="gray")) for frame in frames]


@asynccontextmanager
async def playing(browser, path: str = "/whep", lost_every: int = 0):
    """A player that is connected. Yields: it and its session's address."""
    player = Player()
    try:
        yield player, await player.play(browser, path, lost_every)
    finally:
        await player.peer.close()


def test_a_viewer_sees_every_frame_from_a_key_frame_on_and_gives_its_place_back(tmp_path):
    async def test():
        async with serving(tmp_path) as server, browsing(server) as browser:
            context = server.context
            async with playing(browser, "/cam/cam0/whep") as (player, session):
                assert session.startswith(f"{server.url}/cam/cam0/whep/")
                first, *more = await player.numbers(40)
                assert [*more] == list(range(first + 1, first + 40)), "none is missing, each is there once"
                [viewer] = context.viewers.entries.values()
                assert (viewer.kind, viewer.variant, viewer.peer) == ("h264", "webrtc", "127.0.0.1")
                assert viewer.counts.sent >= 40
                assert server.camera.live_video.age_s < 60
                assert (await browser.delete(session.replace("/cam0/", "/cam1/"))).status == 404
                assert (await browser.delete(session)).status == 200
                assert (context.webrtc_sessions.by_id, context.viewers.entries) == ({}, {})
                assert server.camera.live_video.viewers == set()
                assert context.viewer_slots.streams == 0
                assert (await browser.delete(session)).status == 404

    run(test())


def test_a_viewer_that_lost_too_much_gets_a_key_frame_when_it_asks_and_not_more_than_one_a_second(tmp_path):
    async def test():
        async with serving(tmp_path) as server, browsing(server) as browser, playing(browser) as (player, _):
            await player.numbers(5)
            receiver, asked = player.peer.getReceivers()[0], server.encoder.keys_asked
            began = time.monotonic()
            for _ in range(20):  # a hostile viewer, or one on a bad line
                await receiver._send_rtcp_pli(next(iter(receiver._RTCRtpReceiver__remote_streams)))
            await eventually(lambda: server.encoder.keys_asked > asked, what="a key frame to be asked for")
            await player.numbers(10)
            assert server.encoder.keys_asked - asked <= 1 + (time.monotonic() - began) / KEY_PERIOD_S

    run(test())


def test_the_picture_goes_on_and_stays_whole_where_4_percent_of_the_packets_are_lost(tmp_path):
    """What is lost is sent again when the viewer asks (NACK); there is no second key frame here."""

    async def test():
        async with (
            serving(tmp_path) as server,
            browsing(server) as browser,
            playing(browser, lost_every=25) as (player, _),
        ):
            numbers = await player.numbers(100)
            assert None not in numbers, "each picture is whole: its number is readable"
            assert numbers == sorted(set(numbers)) and numbers[-1] - numbers[0] < 110
            assert server.encoder.number - numbers[-1] < 25, "and live"

    run(test())


def test_a_viewer_that_goes_without_a_word_or_never_connects_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(whep, "CONNECT_S", 0.5)

    async def test():
        async with serving(tmp_path) as server, browsing(server) as browser:
            sessions = server.context.webrtc_sessions.by_id
            async with playing(browser) as (player, _):
                await player.numbers(3)
            await eventually(lambda: not sessions, 20, "the closed connection to be noticed")
            player = Player()
            await player.peer.setLocalDescription(await player.peer.createOffer())
            offer = player.peer.localDescription.sdp
            await player.peer.close()
            assert (await browser.post("/whep", data=offer, headers=OFFERED)).status == 201
            assert len(sessions) == 1
            await eventually(lambda: not sessions, 20, "the one that never connects to be given up")
            assert server.context.viewer_slots.streams == 0

    run(test())


def test_sessions_are_limited_and_the_server_ends_with_some_open(tmp_path):
    async def test():
        text = "[webrtc]\nmax_sessions = 2\n"
        async with serving(tmp_path, text) as server, browsing(server) as browser:
            closing = server.context.closing
            async with playing(browser) as (player, session), playing(browser):
                await player.numbers(3)
                refused = await browser.post("/whep", data=OFFER, headers=OFFERED)
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
                assert "2 WebRTC sessions run already" in (await refused.json())["reason"]
                assert (await browser.delete(session)).status == 200
                async with playing(browser) as (third, _):
                    await third.numbers(3)
                    closing.set()
                    await eventually(lambda: not server.context.webrtc_sessions.by_id, 20, "all to end")

    run(test())


def test_another_origin_may_watch_when_it_is_listed(tmp_path):
    async def test():
        text = '[http]\norigins = ["https://home.example"]\n'
        async with serving(tmp_path, text) as server, browsing(server) as browser:
            asked = {"Access-Control-Request-Method": "DELETE"}
            for origin, allowed in (("https://home.example", "https://home.example"), ("https://evil.example", None)):
                preflight = await browser.options("/whep/x", headers={"Origin": origin, **asked})
                assert preflight.headers.get("Access-Control-Allow-Origin") == allowed
                answer = await browser.post("/whep", data=OFFER, headers={"Origin": origin, **OFFERED})
                assert answer.status == (400 if allowed else 403), "the offer is no good; whose it is comes first"
                if allowed:
                    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
                    assert "Location" in answer.headers["Access-Control-Expose-Headers"]

    run(test())


def test_whoever_comes_through_a_trusted_proxy_gets_addresses_it_can_reach(tmp_path):
    """The proxy on this machine reaches us on loopback, where the viewer cannot; others get what they reached."""

    async def test():
        text = '[http]\ntrusted_proxies = ["127.0.0.1"]\n[webrtc]\nenable = true\n'
        async with serving(tmp_path, text) as server, browsing(server) as browser:
            player = Player()
            await player.peer.setLocalDescription(await player.peer.createOffer())
            for headers, loopback in (({}, True), ({"X-Forwarded-For": "198.51.100.7"}, False)):
                offer = player.peer.localDescription.sdp
                answer = await browser.post("/whep", data=offer, headers={**OFFERED, **headers})
                candidates = [line for line in (await answer.text()).splitlines() if line.startswith("a=candidate")]
                assert [" 127.0.0.1 " in line for line in candidates] == [loopback] * len(candidates)
                await browser.delete(f"/whep/{URL(answer.headers['Location']).name}")
            await player.peer.close()

    run(test())


def test_without_aiortc_or_switched_off_the_reason_and_the_cure_are_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(whep, "AIORTC", replace(whep.AIORTC, name="aiortc_that_is_away"))
        assert whep.find_webrtc_problem(WebRtcSettings()).endswith("bin/pip install 'shmcam[webrtc]'")

    async def test():
        async with running(tmp_path, "[webrtc]\nenable = false\n", fps=30) as server, browsing(server) as browser:
            refused = await browser.post("/whep", data=OFFER, headers=OFFERED)
            assert (refused.status, (await refused.json())["reason"]) == (501, "webrtc.enable is false")
            overview = await (await browser.get("/api/v1/overview")).json()
            assert overview["no_webrtc"] == "webrtc.enable is false"
            assert overview["cameras"][0]["h264_age_s"] is None

    run(test())


@pytest.mark.parametrize(
    ("broken", "status", "why"),
    [
        (OFFER.replace("a=recvonly", "a=sendrecv"), 400, "must only receive"),
        (OFFER.replace("H264", "VP8"), 400, "nothing is encoded anew"),
        (OFFER.replace("m=video", "m=application"), 400, "it has: application"),
        (OFFER + OFFER, 400, "it has: video, video"),
        ("", 400, "it has: none"),
        ("\0" * 1000, 400, "it has: none"),
        (OFFER, 400, "offer cannot be read"),  # no keys
        (OFFER.replace("mode=1", "mode=0"), 400, ""),
        (OFFER.replace("video 9", "video x"), 400, "offer cannot be read"),
        (OFFER + "a=fingerprint:\r\n", 400, "offer cannot be read"),
        (OFFER + KEYS + "a=fmtp:103 apt=102\r\n", 400, "StopIteration"),
        (OFFER + KEYS + AUDIO + KEYS, 400, "do not match"),  # one mid for both; seen only while the answer is made
        (OFFER + "x" * 70_000, 413, ""),
    ],
)
def test_offers_that_are_none_are_refused_with_the_reason(tmp_path, broken, status, why):
    async def test():
        async with serving(tmp_path) as server, browsing(server) as browser:
            answer = await browser.post("/whep", data=broken.encode(), headers=OFFERED)
            assert (answer.status, why in (await answer.json())["reason"]) == (status, True), await answer.json()
            assert server.context.webrtc_sessions.by_id == {}
            assert (await browser.post("/whep", data=OFFER, headers={"Content-Type": "text/plain"})).status == 415
            assert (await browser.post("/cam/cam9/whep", data=OFFER, headers=OFFERED)).status == 404
            assert (await browser.patch("/whep/x", headers={"Content-Type": "application/json"})).status == 405

    run(test())


# ---- rules


def test_the_viewers_addresses_are_taken_out_of_its_offer():
    assert find_offer_problem(OFFER) == ""
    assert "192.0.2.77" not in remove_candidates(OFFER)
    assert remove_candidates(OFFER).count("\r\n") == OFFER.count("\r\n") - 2


def test_annex_b_comes_back_as_it_was():
    unit = b"".join(b"\0\0\0\1" + data for data in (SETS.sps, SETS.pps, b"\x65key", b"\x65second slice"))
    assert to_annexb(to_avcc(unit), find_parameter_sets(unit)) == unit
    assert to_annexb(to_avcc(unit), None) == b"\0\0\0\1\x65key\0\0\0\1\x65second slice"


def frames(count: int, keys: tuple[int, ...] = ()):
    return [piece(number, key=number in keys) for number in range(count)]


def sent(viewer: RtpVideoViewer) -> list[int]:
    return [time_us // 1000 for _, time_us in viewer._queue]


def test_a_viewer_begins_with_the_key_frame_it_asked_for_and_skips_to_the_next_when_it_cannot_keep_up():
    asked, full = [], []
    viewer = RtpVideoViewer(lambda: asked.append(1), lambda: bool(full))
    viewer.open(INIT_SEGMENT)
    viewer.offer(piece(0, key=True))
    assert sent(viewer) == [], "nothing goes out before the connection is there"

    async def connect():
        waiting = asyncio.create_task(viewer.next_unit())
        await asyncio.sleep(0)
        assert asked == [1]
        viewer.offer(piece(1))
        assert len(asked) == 2, "it asks until it has one"
        viewer.offer(piece(2, key=True))
        data, time_us = await soon(waiting)
        assert data.startswith(b"\0\0\0\1" + SETS.sps)
        assert time_us == 2000

    run(connect())
    for fragment in frames(8, keys=(6,))[3:]:
        full[:] = [1] if fragment.time_us == 4000 else []
        viewer.offer(fragment)
    assert sent(viewer) == [6, 7], "4 found no room, 5 cannot be decoded without it; what waited is old"
    for number in range(8, 8 + 2 * UNITS_MAX):
        viewer.offer(piece(number))
    assert len(viewer._queue) <= UNITS_MAX


def test_a_key_frame_is_asked_for_once_a_second_at_most():
    live = LiveVideo("cam0")
    assert [live.request_key(now) for now in (10.0, 10.5, 10.9, 11.0, 11.5)] == [True, False, False, True, False]
