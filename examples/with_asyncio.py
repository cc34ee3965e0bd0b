"""Frames in an asyncio program, while other tasks go on: python examples/with_asyncio.py cam0."""

import asyncio
import sys

from shm_ring import attach


async def tick() -> None:
    while True:
        await asyncio.sleep(0.1)
        print("tick", flush=True)


async def main(camera: str = "cam0", prefix: str = "shmcam", frames: int = 0) -> None:
    ticking = asyncio.create_task(tick())
    with attach(camera, prefix=prefix) as ring:
        seen = 0
        async for frame in ring.afollow():
            print(f"frame {frame.frame_id} mean {frame.luma.mean():.1f}", flush=True)
            seen += 1
            if seen == frames:
                break
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
