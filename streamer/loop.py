"""What the streamer does all day: one event loop that serves, one thread per camera that encodes."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from contextlib import ExitStack
from functools import partial

import psutil

from shm_ring import LiveRing
from shm_ring.records.scores import Scores
from shmcam.config.settings import Settings
from shmcam.control.messages import Status
from shmcam.runtime.clock import now_ns
from shmcam.runtime.stop import Stop
from shmcam.runtime.timers import Backoff
from streamer.auth.policy import Guard
from streamer.h264.live_video import LiveFeed, LiveVideo
from streamer.h264.routes import request_live_packets
from streamer.http.context import Context, StreamedCamera
from streamer.http.server import connections_of, door_of, house_of, listen, serving, tls_of, warn_of_readers
from streamer.hub_link import HubLink
from streamer.monitoring.load import load_of
from streamer.monitoring.throttle import Load, LoadLimits
from streamer.monitoring.viewers import ViewerTable
from streamer.pictures.caption import Caption
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.pictures.feed import IDLE_S, Feed
from streamer.pictures.long_exposure import STREAM, LongExposureReader
from streamer.pictures.scores import ScoreReader
from streamer.settings import HttpSettings, MjpegServerSettings

log = logging.getLogger(__name__)

LOAD_PERIOD_S = 1.0
HUB_ANSWER_S = 2.0


def wait_for_port(settings: Settings, stop: Stop, hub_link: HubLink) -> socket.socket:
    """Open the listening socket; while somebody else has the port, stay up, say so and try again.

    Returns: the caller closes it; one that listens nowhere if stop was requested meanwhile.
    """
    bind, port, backoff = settings.table(HttpSettings).bind, settings.table(MjpegServerSettings).port, Backoff()
    while not stop.requested:
        try:
            return listen(bind, port)
        except OSError as error:
            delay_s = backoff.delay_s()
            log.warning("%s; next try in %.0f s", error.strerror, delay_s)
            hub_link.idle("no port", error.strerror or str(error), delay_s)
    return socket.socket()


async def serve(settings: Settings, stop: Stop, hub_link: HubLink, sock: socket.socket) -> None:
    """Serve on a listening socket until stop is requested. Raises: CannotServe; a feed that fails requests the stop."""
    http, mjpeg = settings.table(HttpSettings), settings.table(MjpegServerSettings)
    house, guard, tls = house_of(http), Guard(house_of(http), door_of(http)), tls_of(settings)
    warn_of_readers(settings)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_reader(stop.fileno(), stopped.set)
    with ExitStack() as stack:
        context = Context(
            settings,
            house,
            guard,
            {},
            ViewerTable(),
            ViewerSlots(mjpeg.max_streams, mjpeg.max_variants),
            connections_of(http),
            hub_link,
        )
        feeds = _feeds(context, stop, stack, loop)
        hub_link.begin(context, loop)
        hub_link.create_task(watch_load(context))
        hub_link.create_task(request_live_packets(context))
        for feed in feeds:
            feed.thread.start()
        async with serving(context, sock, tls) as url:
            log.info("ready url=%s cameras=%s", url, ",".join(context.cameras))
            await stopped.wait()
        loop.remove_reader(stop.fileno())
        for feed in feeds:
            feed.thread.join(4 * IDLE_S)
    totals = context.viewers.sum_up()
    log.info("stopped viewers=%d pictures=%d", sum(totals.viewers.values()), sum(totals.sent.values()))


def _feeds(context: Context, stop: Stop, stack: ExitStack, loop: asyncio.AbstractEventLoop) -> list[Feed | LiveFeed]:
    """Make fan-out and feeds of each camera and enter them into the context."""
    settings = context.settings
    cameras: dict[str, StreamedCamera] = {}
    feeds: list[Feed | LiveFeed] = []
    for name in settings.cameras:
        ring, packets, long = (
            stack.enter_context(LiveRing(settings.ring_name(name, stream), stop)) for stream in ("main", "h264", STREAM)
        )
        scores = stack.enter_context(Scores(settings.ring_name(name, "scores"), stop))
        fanout, live = Fanout(name, context.places, now_ns), LiveVideo(name)
        marks = ScoreReader(scores)
        feed = Feed(
            fanout,
            ring,
            LongExposureReader(
                long,
                marks,
                Caption(name, context.now),
                partial(_long_exposure_s, context, name),
                context.stale_after_s,
            ),
            marks,
            Caption(name, context.now),
            loop=loop,
            stop=stop,
            stale_after_s=context.stale_after_s,
        )
        feeds += [feed, LiveFeed(live, packets, loop=loop, stop=stop)]
        cameras[name] = StreamedCamera(name, fanout, feed, live)
    context.cameras = cameras
    return feeds


def _long_exposure_s(context: Context, camera: str) -> float:
    """The exporter's setting, as it is now for this camera."""
    return float(context.settings.value(f"cameras.{camera}.export.long_exposure_s"))


async def watch_load(context: Context) -> None:
    """Look at the machine once a second until cancelled, and slow viewers down or up.

    Measured here for everybody, so that a hundred open pages ask the hub no more than one does.
    """
    psutil.cpu_percent(None)  # the first call only sets the mark
    while True:
        await look(context)
        mjpeg = context.mjpeg
        load = Load(context.system_load.cpu_percent, context.system_load.recorder_lag_s)
        now = time.monotonic()
        context.session_throttle.update(load, LoadLimits(mjpeg.busy_cpu_percent, mjpeg.busy_recorder_lag_s), now)
        if context.encoding_throttle.update(load, LoadLimits(math.inf, mjpeg.busy_recorder_lag_s), now):
            context.apply_throttle()
        await asyncio.sleep(LOAD_PERIOD_S)


async def look(context: Context) -> None:
    """Measure once."""
    context.system_load = load_of(await context.hub.ask(Status(), HUB_ANSWER_S), context.system_load)
