"""The process that shows pictures: MJPEG, live H.264, WebSocket sessions, REST and the web page."""

from __future__ import annotations

import os

# aiohttp would send files by sendfile(2) past our write deadline (http.connection); it reads this when imported.
os.environ.setdefault("AIOHTTP_NOSENDFILE", "1")
