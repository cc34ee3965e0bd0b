"""Two cameras paired by the time of capture: python examples/stereo.py cam0 cam1."""

import sys

from shm_ring import attach, pairs


def main(left: str = "cam0", right: str = "cam1", prefix: str = "shmcam", count: int = 0) -> None:
    with attach(left, prefix=prefix) as one, attach(right, prefix=prefix) as two:
        for done, pair in enumerate(pairs(one, two, tolerance_s=0.02), 1):
            print(f"{pair.first.frame_id} with {pair.second.frame_id}: {pair.error_ns / 1e6:+.2f} ms apart", flush=True)
            if done == count:
                return


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
