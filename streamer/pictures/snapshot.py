"""Single pictures: `/snapshot.jpg`, `/cam/<name>/snapshot.jpg`, `/?action=snapshot`; encoded once for all requests."""

from __future__ import annotations

import asyncio

from aiohttp import web
from msgspec.structs import replace

from streamer.http.context import CONTEXT, StreamedCamera, camera_of
from streamer.http.endless_response import NO_STORE
from streamer.pictures.fanout import TooManyViewers
from streamer.pictures.jpeg_picture import JpegPicture, headers_of
from streamer.pictures.mjpeg import read_variant
from streamer.pictures.variant import Variant

WAIT_S = 10.0
"""The longest wait for the next frame; more than the longest night exposure of 6 s."""


class OneShot:
    """A viewer of one picture."""

    def __init__(self) -> None:
        self.picture: asyncio.Future[JpegPicture] = asyncio.get_running_loop().create_future()

    def offer(self, picture: JpegPicture) -> None:
        """Keeps the first picture."""
        if not self.picture.done():
            self.picture.set_result(picture)


async def serve_snapshot(request: web.Request) -> web.StreamResponse:
    """Answers with the newest picture."""
    context = request.app[CONTEXT]
    camera = camera_of(context, request)
    variant = replace(read_variant(context, request), fps=context.mjpeg.fps)
    picture = await wait_for_picture(camera, variant)
    if not picture.signal:
        subject = f"no {'long exposure' if variant.long else 'signal'} from {camera.name}"
        reason = f"{subject}: {picture.reason}" if picture.reason else subject
        raise web.HTTPServiceUnavailable(text=reason, headers={"Retry-After": "2"})
    return web.Response(
        body=picture.jpeg,
        content_type="image/jpeg",
        headers={**NO_STORE, **headers_of(picture), "ETag": f'"{camera.name}-{picture.frame_id}"'},
    )


async def wait_for_picture(camera: StreamedCamera, variant: Variant, wait_s: float = WAIT_S) -> JpegPicture:
    """Waits for one picture of a camera. Raises: HTTPServiceUnavailable."""
    viewer = OneShot()
    try:
        camera.fanout.join(variant, viewer)
    except TooManyViewers as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    try:
        async with asyncio.timeout(wait_s):
            return await viewer.picture
    except TimeoutError:
        raise web.HTTPServiceUnavailable(text=f"no picture from {camera.name} within {wait_s:g} s") from None
    finally:
        camera.fanout.leave(variant, viewer)
