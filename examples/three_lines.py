"""The shortest reader: python examples/three_lines.py cam0."""

import sys

from shm_ring import attach

with attach(sys.argv[1], prefix=sys.argv[2] if len(sys.argv) > 2 else "shmcam") as ring:
    for frame in ring.follow():
        print(frame.frame_id, frame.bgr.shape, frame.bgr.mean(), flush=True)
