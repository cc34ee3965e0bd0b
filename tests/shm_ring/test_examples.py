"""Every program in examples/ runs against a live ring and prints what it promises."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from shm_ring import RingWriter, attach
from shm_ring.layout import SEGMENT_HEADER, offset_of
from tests.shm_ring.frames import REPOSITORY, start_writer
from tests.shm_ring.test_attach import LONG, SHAPE, Camera

EXAMPLES = REPOSITORY / "examples"


def first_lines(name: str, *arguments: str, lines: int) -> list[str]:
    """Run an example until it has printed some lines, or ended."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=environment) as process:
        seen = [process.stdout.readline().strip() for _ in range(lines)]
        process.kill()
    return seen


@pytest.fixture
def camera(make_writer):
    with make_writer(slots=LONG, payload_bytes=SHAPE.payload_bytes) as writer, Camera(writer) as camera:
        yield camera


def test_every_example_is_tested():
    tested = {"three_lines.py", "motion.py", "with_asyncio.py", "stereo.py", "capture_swap.py", "reader.c"}
    tested |= {"client.py"}  # tests/test_former_programs.py
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == tested


def test_three_lines(prefix, camera):
    assert re.fullmatch(r"\d+ \(48, 64, 3\) \d+\.\d+", first_lines("three_lines.py", "cam0", prefix, lines=1)[0])


def test_motion(prefix, camera):
    for line in first_lines("motion.py", "cam0", prefix, "2", lines=2):
        assert re.fullmatch(r"frame \d+: \d+\.\d% of the picture moves", line)


def test_with_asyncio(prefix, camera):
    lines = first_lines("with_asyncio.py", "cam0", prefix, lines=60)
    assert any(re.fullmatch(r"frame \d+ mean \d+\.\d", line) for line in lines)
    assert "tick" in lines


def test_stereo(prefix, camera):
    lines = first_lines("stereo.py", "cam0", "cam0", prefix, "3", lines=3)
    for line in lines:
        number = line.split()[0]
        assert line == f"{number} with {number}: +0.00 ms apart"  # a camera with itself


def test_capture_swap(prefix, camera):
    assert first_lines("capture_swap.py", "cam0", prefix, lines=2)[1].startswith("(48, 64, 3) ")


class EnoughError(Exception):
    """Ends a program of the manual that would go on for ever."""


def first_prints(program: str, prefix: str, names: dict[str, object], lines: int = 3) -> list[tuple]:
    """Run a program of the manual, with its cameras under a prefix, until it has printed some lines, or ended."""
    printed: list[tuple] = []

    def shown(*values: object) -> None:
        printed.append(values)
        if len(printed) == lines:
            raise EnoughError

    program = re.sub(r'(attach|SharedCapture)\("(cam\d)"', rf'\1("\2", prefix="{prefix}"', program)
    names["print"] = shown
    with suppress(EnoughError):
        exec(compile(program, "manual", "exec"), names)
    return printed


def programs(manual: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / manual).read_text(), re.DOTALL)


def test_the_programs_of_the_manual_run(prefix, camera, tmp_path):
    """Typed as they stand: docs/attach.md, and the three lines of README.md."""
    three_lines, which, history, borrowed, two_cameras, swap = programs("docs/attach.md")
    assert {shape for _, shape in first_prints(three_lines, prefix, {})} == {(48, 64, 3)}
    with attach("cam0", prefix=prefix) as ring:
        names: dict[str, object] = {"ring": ring}
        for program in (which, history, borrowed):
            assert first_prints(program, prefix, names) == []
        assert names["frame"].geometry == SHAPE
        assert 0 <= names["score"] < 200
    with (
        RingWriter.create(
            f"/{prefix}.cam1.main", slots=LONG, payload_bytes=SHAPE.payload_bytes, lock_dir=tmp_path, camera="cam1",
            stream="main",
        ) as writer,
        Camera(writer),
    ):  # fmt: skip
        assert all(abs(error_ns) <= 20_000_000 for _, _, error_ns in first_prints(two_cameras, prefix, {}))
    names = {}
    first_prints(swap, prefix, names)
    assert names["ok"] is True and names["picture"].shape == (48, 64, 3)
    names["capture"].release()
    (readme,) = (program for program in programs("README.md") if "from shm_ring" in program)
    assert len(first_prints(readme, prefix, {})) == 3


@pytest.fixture(scope="module")
def c_reader(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler: apt install gcc")
    program = tmp_path_factory.mktemp("c") / "reader"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11"]
    subprocess.run([compiler, *flags, "-o", str(program), str(EXAMPLES / "reader.c")], check=True)
    return program


def test_the_c_reader_reads_the_same_frames(c_reader, ring_name, tmp_path):
    """60 lines of C that know only the layout: the ring is language-neutral. Full speed, self-checking frames."""
    size = 65536
    process = start_writer(ring_name, tmp_path, slots=4, size=size)
    try:
        done = subprocess.run([c_reader, ring_name, "300"], capture_output=True, text=True, timeout=60, check=True)
    finally:
        process.kill()
        process.wait()
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(rows) == 300
    assert [number for number, _, _ in rows] == sorted({number for number, _, _ in rows})
    for number, used, total in rows:
        word = (number * 2654435761 + 1) & 0xFFFFFFFF
        assert used == size
        assert total == sum(word.to_bytes(4, "little")) * (size // 4), f"frame {number} is torn"


def test_the_c_reader_refuses_what_is_not_a_ring(c_reader, ring_name):
    assert subprocess.run([c_reader, ring_name, "1"], capture_output=True, check=False).returncode == 1
    Path(f"/dev/shm{ring_name}").write_bytes(bytes(8192))
    done = subprocess.run([c_reader, ring_name, "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not a ring of version 1" in done.stderr


def test_the_c_reader_refuses_headers_that_lead_past_the_mapping(c_reader, make_writer, ring_name):
    make_writer().close()
    for field, value in (("slot_header_bytes", 1 << 20), ("slots", 1 << 24)):
        at = offset_of(SEGMENT_HEADER, field)
        with Path(f"/dev/shm{ring_name}").open("r+b") as file:
            file.seek(at)
            before = file.read(4)
            file.seek(at)
            file.write(value.to_bytes(4, sys.byteorder))
            file.flush()
            done = subprocess.run([c_reader, ring_name, "1"], capture_output=True, text=True, check=False)
            file.seek(at)
            file.write(before)
        assert (done.returncode, done.stderr) == (1, f"{ring_name}: not a ring of version 1\n")
