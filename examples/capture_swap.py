"""A program written for cv2.VideoCapture; only the line that opens the camera has changed."""

import sys

from shm_ring import SharedCapture

capture = SharedCapture(sys.argv[1], prefix=sys.argv[2] if len(sys.argv) > 2 else "shmcam")  # was: cv2.VideoCapture(0)
while capture.isOpened():
    ok, picture = capture.read()
    if not ok:
        break
    print(picture.shape, picture.mean(), flush=True)
capture.release()
