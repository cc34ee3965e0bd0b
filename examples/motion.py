"""A motion detector in OpenCV, on a camera that others use at the same time: python examples/motion.py cam0."""

import sys

import cv2

from shm_ring import attach


def main(camera: str = "cam0", prefix: str = "shmcam", frames: int = 0) -> None:
    background = cv2.createBackgroundSubtractorMOG2(history=100, detectShadows=False)
    with attach(camera, prefix=prefix) as ring:
        for seen, frame in enumerate(ring.follow(max_fps=10), 1):  # the newest frame, ten times a second
            small = cv2.resize(frame.luma, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            moving = cv2.countNonZero(background.apply(small)) / small.size
            print(f"frame {frame.frame_id}: {moving:.1%} of the picture moves", flush=True)
            if seen == frames:
                return


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
