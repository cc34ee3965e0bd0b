"""The shortest reader: python examples/three_lines.py cam0."""

import sys

from shm_ring import attach

camera = sys.argv[1] if len(sys.argv) > 1 else "cam0"
prefix = sys.argv[2] if len(sys.argv) > 2 else "shmcam"
with attach(camera, prefix=prefix) as ring:
    for frame in ring.follow():
        print(frame.frame_id, frame.bgr.shape, frame.bgr.mean(), flush=True)
