"""The streamer's day: one event loop that serves, and per camera a thread that encodes."""

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
from streamer.h264.live_video import LiveFeed, LiveVideo
from streamer.h264.routes import request_live_packets
from streamer.http.context import Context, StreamedCamera
from streamer.http.listener import listen
from streamer.http.server import (
    connections_of,
    guard_of,
    identity_of,
    load_tls,
    proxies_of,
    run_server,
    warn_if_readable,
)
from streamer.hub_link import HubLink
from streamer.monitoring.system_load import load_of
from streamer.monitoring.throttle import Load, LoadLimits
from streamer.monitoring.viewers import ViewerTable
from streamer.pictures.fanout import Fanout, ViewerSlots
from streamer.pictures.feed import IDLE_S, Feed
from streamer.pictures.live_overlay import Caption
from streamer.pictures.long_exposure_reader import STREAM, LongExposureReader
from streamer.pictures.scores import ScoreReader
from streamer.settings import HttpSettings, MjpegServerSettings

log = logging.getLogger(__name__)

LOAD_PERIOD_S, IDLE_LOAD_PERIOD_S = 1.0, 3.0
"""Seconds between two measurements of the load, with and without a connection."""
HUB_ANSWER_S = 2.0


def wait_for_port(settings: Settings, stop: Stop, hub_link: HubLink) -> socket.socket:
    """Opens the listening socket; while another process has the port, stays up, reports it and tries again.

    Returns: the socket, which the caller closes; it does not listen if stop was requested meanwhile.
    """
    bind, port, backoff = settings.table(HttpSettings).bind, settings.table(MjpegServerSettings).port, Backoff()
    while not stop.requested:
        try:
            return listen(bind, port)
        except OSError as error:
            delay_s = backoff.next_delay_s()
            log.warning("%s; next try in %.0f s", error.strerror, delay_s)
            hub_link.idle("no port", error.strerror or str(error), delay_s)
    return socket.socket()


async def serve(settings: Settings, stop: Stop, hub_link: HubLink, sock: socket.socket) -> None:
    """Serves on a listening socket until stop is requested, also by a feed that fails. Raises: CannotServe."""
    http, mjpeg = settings.table(HttpSettings), settings.table(MjpegServerSettings)
    identity, tls, guard = identity_of(http), load_tls(settings), guard_of(http)
    warn_if_readable(settings)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_reader(stop.fileno(), stopped.set)
    with ExitStack() as stack:
        context = Context(
            settings,
            identity,
            guard,
            {},
            ViewerTable(),
            ViewerSlots(mjpeg.max_streams, mjpeg.max_variants),
            connections_of(http, mjpeg),
            hub_link,
            proxies_of(http),
        )
        feeds = _create_feeds(context, stop, stack, loop)
        hub_link.begin(context, loop)
        hub_link.create_task(update_load_forever(context))
        hub_link.create_task(request_live_packets(context))
        for feed in feeds:
            feed.thread.start()
        async with run_server(context, sock, tls) as url:
            log.info("ready url=%s cameras=%s", url, ",".join(context.cameras))
            await stopped.wait()
        loop.remove_reader(stop.fileno())
        for camera in context.cameras.values():
            camera.fanout.joined.set()  # ends the sleep of its feed
        for feed in feeds:
            feed.thread.join(4 * IDLE_S)
    totals = context.viewers.sum_up()
    log.info("stopped viewers=%d pictures=%d", sum(totals.viewers.values()), sum(totals.sent.values()))


def _create_feeds(
    context: Context, stop: Stop, stack: ExitStack, loop: asyncio.AbstractEventLoop
) -> list[Feed | LiveFeed]:
    """Creates fan-out and feeds of each camera and puts them into the context. Returns: the feeds."""
    settings = context.settings
    cameras: dict[str, StreamedCamera] = {}
    feeds: list[Feed | LiveFeed] = []
    for name in settings.cameras:
        ring, packets, long_ring = (
            stack.enter_context(LiveRing(settings.ring_name(name, stream), stop, waits_for_repair=stream != STREAM))
            for stream in ("main", "h264", STREAM)
        )
        scores = ScoreReader(stack.enter_context(Scores(settings.ring_name(name, "scores"), stop)))
        fanout, live_video = Fanout(name, context.viewer_slots, now_ns), LiveVideo(name)
        feed = Feed(
            fanout,
            ring,
            LongExposureReader(
                long_ring,
                scores,
                Caption(name, context.get_settings),
                partial(_get_long_exposure_s, context, name),
                context.get_stale_after_s,
            ),
            scores,
            Caption(name, context.get_settings),
            loop=loop,
            stop=stop,
            get_stale_after_s=context.get_stale_after_s,
        )
        feeds += [feed, LiveFeed(live_video, packets, loop=loop, stop=stop)]
        cameras[name] = StreamedCamera(name, fanout, feed, live_video)
    context.cameras = cameras
    return feeds


def _get_long_exposure_s(context: Context, camera: str) -> float:
    """Returns the exporter's current setting for this camera."""
    return float(context.settings.value(f"cameras.{camera}.export.long_exposure_s"))


async def update_load_forever(context: Context) -> None:
    """Measures the load until cancelled, and adapts the rate of viewers to it.

    The result serves all viewers, so that a hundred open pages ask the hub no more often than one.
    """
    psutil.cpu_percent(None)  # the first call only starts the measurement
    while True:
        await measure_load(context)
        mjpeg = context.mjpeg
        load = Load(context.system_load.cpu_percent, context.system_load.recorder_lag_s)
        now = time.monotonic()
        context.session_throttle.update(load, LoadLimits(mjpeg.busy_cpu_percent, mjpeg.busy_recorder_lag_s), now)
        if context.encoding_throttle.update(load, LoadLimits(math.inf, mjpeg.busy_recorder_lag_s), now):
            context.apply_throttle()
        await asyncio.sleep(LOAD_PERIOD_S if context.connections.open else IDLE_LOAD_PERIOD_S)


async def measure_load(context: Context) -> None:
    """Measures the load once."""
    context.system_load = load_of(await context.hub.ask(Status(), HUB_ANSWER_S), context.system_load)
