"""A program written for cv2.VideoCapture; only the line that opens the camera has changed."""

import sys

from shm_ring import SharedCapture

camera = sys.argv[1] if len(sys.argv) > 1 else "cam0"
prefix = sys.argv[2] if len(sys.argv) > 2 else "shmcam"
capture = SharedCapture(camera, prefix=prefix)  # was: cv2.VideoCapture(0)
while capture.isOpened():
    ok, picture = capture.read()
    if not ok:
        break
    print(picture.shape, picture.mean(), flush=True)
capture.release()
