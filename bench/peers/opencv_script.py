"""A camera service in one loop, as people write it with OpenCV: capture, detect, record, save, serve."""

from __future__ import annotations

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2

newest = b""


class Handler(BaseHTTPRequestHandler):
    """Serves the newest picture again and again."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while True:
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + newest + b"\r\n")
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main() -> None:
    """Works until it is killed."""
    global newest
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the bench runs in the background
    video, folder, port = sys.argv[1:]
    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever, daemon=True).start()
    camera = cv2.VideoCapture(video)
    fps = camera.get(cv2.CAP_PROP_FPS)
    size = int(camera.get(cv2.CAP_PROP_FRAME_WIDTH)), int(camera.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(f"{folder}/clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    before, number, began = None, 0, time.monotonic()
    try:
        while True:
            there, frame = camera.read()
            if not there:
                break
            grey = cv2.GaussianBlur(cv2.cvtColor(cv2.resize(frame, (320, 180)), cv2.COLOR_BGR2GRAY), (21, 21), 0)
            if before is not None:
                cv2.countNonZero(cv2.threshold(cv2.absdiff(before, grey), 25, 255, cv2.THRESH_BINARY)[1])
            before = grey
            writer.write(frame)
            if number % 3 == 0:
                newest = cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()
            if number % 30 == 0:
                cv2.imwrite(f"{folder}/picture.jpg", frame)
            number += 1
            time.sleep(max(0.0, began + number / fps - time.monotonic()))
    except KeyboardInterrupt:
        pass
    writer.release()


if __name__ == "__main__":
    main()
