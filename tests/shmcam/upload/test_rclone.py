"""What is told of a run while it goes on, by a program in rclone's place."""

from shmcam.upload import rclone
from shmcam.upload.rclone import Rclone, RunStats


def test_a_store_that_takes_nothing_is_told_while_rclone_still_waits_for_it(tmp_path, monkeypatch):
    """It was `uploading`, without a reason, for the three minutes until rclone gave up."""
    program = tmp_path / "rclone"
    program.write_text('#!/bin/sh\necho \'{"stats": {"bytes": 0, "totalBytes": 9}}\' >&2\nexec sleep 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(rclone, "QUIET_S", 0.2)
    monkeypatch.setattr(rclone, "LOOK_S", 0.1)
    seen: list[RunStats] = []
    Rclone(config=None, on_stats=seen.append).copy(tmp_path, "nas:x", ["a"])
    assert seen[0] == RunStats(total_bytes=9), "not at once"
    assert RunStats(total_bytes=9, is_quiet=True) in seen
    assert seen[-1] == RunStats(), "its end is the end of that"
