"""A resize where /dev/shm has room for one ring and a half: `python -m tests.capture.tiny_shm`, in a namespace."""

from shm_ring.errors import RingNotReady
from tests.capture.harness import Processes
from tests.machine import until

SLOTS = 30


def slots(world):
    """The slots of the ring; 0 while it is being made."""
    try:
        with world.reader() as ring:
            return ring.slots
    except RingNotReady:
        return 0


def main():
    with Processes(ring={"size": 0, "seconds": 1.0}) as world:
        world.start_hub()
        world.start_capture()
        until(lambda: world.beat().get("state") == "running", 20)
        assert slots(world) == SLOTS
        reader = world.reader()
        assert world.ask("set camera.width 336").ok
        said = until(lambda: "no room" in (reason := world.beat()["reason"]) and reason, 30, world.log)
        few = until(lambda: slots(world), 20, world.log)
        assert few < SLOTS, few
        assert said == f"ring main holds {few} of {SLOTS} frames: no room"
        assert f"size adjusted requested={SLOTS} effective={few}" in world.log()
        reader.close()
        until(lambda: slots(world) == SLOTS and world.beat()["reason"] == "", 30, world.log)
        head = world.head()
        until(lambda: world.head() > head, 20, "frames")


if __name__ == "__main__":
    main()
