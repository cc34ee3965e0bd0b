"""Files as people have them: damaged, joined from several recordings, turned, anamorphic, interlaced, without video."""

import itertools
import math
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import pytest

from capture.sources.base import CameraError, CameraRequest, EndOfStream, GeometryChanged
from capture.sources.decoded_frame import orientation_of
from capture.sources.video_file import FileSource
from shm_ring import Flags
from shm_ring.color import to_bgr
from shm_ring.formats import Geometry, planes
from shmcam.imaging import frame_number_code
from shmcam.runtime.stop import Stop

ASKED = CameraRequest(320, 240, 30.0)
TICK = Fraction(1, 90_000)
STEP = 3600
"""One period of 25/s in TICKs."""


@dataclass
class Played:
    """What came out of a file."""

    geometries: list[Geometry] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    gaps_ms: list[int] = field(default_factory=list)
    lost: int = 0
    flags: list[int] = field(default_factory=list)
    last: np.ndarray | None = None
    said: str = ""


def play(path, **how) -> Played:
    source, played, stamps = FileSource(path, loop=False, realtime=False, **how), Played(), []
    played.geometries.append(source.open(ASKED, Stop()).geometry)
    payload = np.zeros(1 << 20, np.uint8)
    try:
        while True:
            try:
                assert source.wait(1)
            except GeometryChanged as changed:
                played.geometries.append(changed.geometry)
                assert source.wait(0), "the frame that brought the change is ready"
            shot = source.write(payload)
            stamps.append(shot.captured_ns)
            played.lost += shot.lost_before
            played.flags.append(shot.flags)
            played.numbers.append(frame_number_code.read(planes(payload, played.geometries[-1])[0]))
    except EndOfStream as ended:
        played.said = str(ended)
    finally:
        source.close()
    played.gaps_ms = [round((b - a) / 1e6) for a, b in itertools.pairwise(stamps)]
    played.last = payload
    return played


def numbered(number, size=(320, 240)):
    picture = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
    frame_number_code.draw(picture[: size[1]], number)
    return av.VideoFrame.from_ndarray(picture, "yuv420p")


def write(path, frames, *, times=None, codec="libx264", damage=(), options=None, prepare=lambda stream: None, **form):
    """Writes frames (25/s, or at `times` in periods); the packets `damage` get 200 zeros in their middle."""
    frames = list(frames)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"g": "10", "bf": "0", **(options or {})})
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else frames[0].format.name
        stream.time_base = stream.codec_context.time_base = Fraction(1, 25)
        for name, value in form.items():
            setattr(stream.codec_context, name, value)
        prepare(stream)
        packets = []
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for index, packet in enumerate(packets):
            if index in damage:
                data = bytearray(bytes(packet))
                half = len(data) // 3
                data[half : half + 200] = bytes(min(200, len(data) - half))
                whole, packet = packet, av.Packet(bytes(data))
                packet.pts, packet.dts, packet.is_keyframe = whole.pts, whole.dts, whole.is_keyframe
                packet.stream, packet.time_base = stream, whole.time_base
            if times is not None:
                packet.pts = packet.dts = round(times[index] * STEP)
                packet.time_base = TICK
            out.mux(packet)
    return path


# ---- damage


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_a_damaged_picture_is_one_lost_frame_and_one_warning(tmp_path, suffix, caplog):
    """40 pictures of MJPEG, two overwritten: the file ended at the first of them, and began anew when it looped."""
    file = write(tmp_path / f"c.{suffix}", map(numbered, range(40)), codec="mjpeg")
    data = bytearray(file.read_bytes())
    for number in (30, 20):
        start = _nth(data, b"\xff\xd8\xff", number)
        end = data.find(b"\xff\xd9", start)
        data[start:end] = bytes(end - start)
    file.write_bytes(bytes(data))
    with caplog.at_level("WARNING"):
        played = play(file)
    assert played.numbers == [n for n in range(40) if n not in (20, 30)]
    assert played.lost == 2
    assert "ended after 38 frames, 2 more were damaged" in played.said
    assert sum("damaged" in record.message for record in caplog.records) == 1


def _nth(data, what, number):
    at = -1
    for _ in range(number + 1):
        at = data.find(what, at + 1)
    return at


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_a_damaged_h264_file_plays_to_its_end(tmp_path, suffix):
    played = play(write(tmp_path / f"c.{suffix}", map(numbered, range(60)), damage=(13, 34)))
    assert played.numbers[-1] == 59
    assert len(played.numbers) + played.lost >= 50
    assert "ended after" in played.said


def test_a_transport_stream_with_a_hole_plays_to_its_end(tmp_path):
    file = write(tmp_path / "c.ts", map(numbered, range(60)))
    data = bytearray(file.read_bytes())
    at = len(data) // 2
    data[at : at + 3000] = b"\xa5" * 3000
    file.write_bytes(bytes(data))
    played = play(file)
    assert played.numbers[-1] == 59
    assert len(played.numbers) > 45


# ---- time


@pytest.mark.parametrize(
    ("suffix", "times", "gaps"),
    [
        ("ts", [*range(10), *range(90_000, 90_010)], [40] * 19),
        ("mp4", [*range(10), *range(1510, 1520)], [40] * 19),
        ("mkv", [0, 1, 2, 5, 6, 6.5, 12, 40, 41], [40, 40, 120, 40, 20, 220, 1120, 40]),
        ("mp4", [0, 100, 200, 300], [4000, 4000, 4000]),
        ("mp4", [0, 750, 1500, 2250], [30_000, 30_000, 30_000]),
    ],
    ids=["jump of an hour", "pause of a minute", "variable rate", "slow", "time lapse"],
)
def test_gaps_are_the_file_s_own_but_a_jump_is_the_seam_of_two_recordings(tmp_path, suffix, times, gaps):
    """A clock that jumped an hour was waited for, until the file counted as stalled and began anew, for ever."""
    played = play(write(tmp_path / f"c.{suffix}", map(numbered, range(len(times))), times=times))
    assert played.numbers == list(range(len(times)))
    assert played.gaps_ms == gaps
    assert played.lost == 0


def test_a_second_recording_whose_clock_begins_lower_goes_on_after_one_period(tmp_path):
    parts = [
        write(tmp_path / f"{n}.ts", map(numbered, range(n, n + 10)), times=range(n * 9, n * 9 + 10)) for n in (10, 0)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    played = play(joined)
    assert played.numbers == [*range(10, 20), *range(10)]
    assert set(played.gaps_ms) == {40}


def test_a_file_with_a_pause_declares_the_rate_between_its_frames(tmp_path):
    """The average, 0.8/s, made a ring of eight slots for frames that come 25 times a second."""
    file = write(tmp_path / "c.mp4", map(numbered, range(50)), times=[*range(25), *range(1525, 1550)])
    source = FileSource(file)
    assert source.open(ASKED, Stop()).framerate == pytest.approx(25)
    source.close()


@pytest.mark.parametrize("rate", [Fraction(12), Fraction(30000, 1001), Fraction(60)])
def test_h264_without_a_container_plays_at_the_rate_that_it_tells(tmp_path, rate):
    """What raspivid and rpicam-vid write: it played twice as fast, as its clock counts fields."""
    file = tmp_path / "c.h264"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(12):
            out.mux(stream.encode(numbered(number)))
        out.mux(stream.encode(None))
    played = play(file)
    assert played.numbers == list(range(12)) and set(played.gaps_ms) <= {
        math.floor(1000 / rate),
        math.ceil(1000 / rate),
    }


# ---- size, place and shape of the picture


@pytest.mark.parametrize(
    ("codec", "suffixes", "bf"),
    [
        *(("libx264", "ts h264", "3"), ("mjpeg", "mjpeg", "0")),
        *(("mpeg2video", "ts m2v", "2"), ("mpeg1video", "m1v", "0"), ("mpeg4", "ts", "2")),
    ],
)
def test_another_size_inside_a_file_changes_the_stream_and_repeats_and_loses_nothing(tmp_path, codec, suffixes, bf):
    """MPEG-1, -2 and -4: the frame before the change was missing, and nobody counted it."""
    options = {"bf": bf}
    for suffix in suffixes.split():
        parts = [
            write(tmp_path / f"{n}.{suffix}", [numbered(n + k, size) for k in range(15)], codec=codec, options=options)
            for n, size in ((0, (320, 240)), (15, (448, 160)), (30, (320, 240)))
        ]
        joined = tmp_path / f"joined.{suffix}"
        joined.write_bytes(b"".join(part.read_bytes() for part in parts))
        played = play(joined)
        assert played.numbers == list(range(45))
        assert [(shape.width, shape.height) for shape in played.geometries] == [(320, 240), (448, 160), (320, 240)]


def matrices():
    """Every display matrix of quarter turns and mirrors, as the (x, y) to which it takes a stored (x, y)."""
    one = 0x10000
    for a, b, c, d in [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]:
        yield a * one, b * one, c * one, d * one
        yield c * one, a * one, d * one, b * one  # transposed


@pytest.mark.parametrize("matrix", list(matrices()))
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2), (5, 4, 3)])
def test_every_display_matrix_puts_each_pixel_where_it_says(matrix, shape):
    a, b, c, d = matrix
    stored = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    rows, columns = shape[:2]
    packed = np.array([a, b, 0, c, d, 0, 0, 0, 0x40000000], np.int32).tobytes()
    orientation = orientation_of(packed)
    out = np.zeros((columns, rows, *shape[2:]) if orientation.transposed else shape, np.uint8)
    orientation.turn(stored, out)
    places = {
        (x, y): (np.sign(a) * x + np.sign(c) * y, np.sign(b) * x + np.sign(d) * y)
        for x in range(columns)
        for y in range(rows)
    }
    left, top = (min(place[k] for place in places.values()) for k in (0, 1))
    for (x, y), (shown_x, shown_y) in places.items():
        assert (out[shown_y - top, shown_x - left] == stored[y, x]).all()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_phone_s_video_is_shown_upright(tmp_path, rotation):
    """Stored lying, with a matrix that says so: it was shown lying."""
    upright = (240, 320) if rotation % 180 else (320, 240)
    shown = np.full((upright[1], upright[0]), 60, np.uint8)
    shown[:40, :60] = 220  # bright in the upper left corner
    stored = np.rot90(shown, -rotation // 90)
    picture = np.full((stored.shape[0] * 3 // 2, stored.shape[1]), 128, np.uint8)
    picture[: stored.shape[0]] = stored
    frames = (av.VideoFrame.from_ndarray(picture, "yuv420p") for _ in range(3))
    file = write(tmp_path / "c.mp4", frames, prepare=lambda stream: stream.set_display_rotation(rotation))
    played = play(file)
    (shape,) = played.geometries
    assert (shape.width, shape.height) == upright
    luma = planes(played.last, shape)[0].astype(int)
    assert np.abs(luma - shown).mean() < 4


def test_pixels_that_are_not_square_keep_their_shape_and_turn_with_the_picture(tmp_path):
    def prepare(stream):
        stream.set_display_rotation(90)

    flat = write(tmp_path / "f.mp4", [numbered(0)], sample_aspect_ratio=Fraction(16, 11))
    turned = write(tmp_path / "t.mp4", [numbered(0)], sample_aspect_ratio=Fraction(16, 11), prepare=prepare)
    (shape,), (upright,) = play(flat).geometries, play(turned).geometries
    assert (shape.sample_aspect, shape.shown_width) == ((16, 11), 465)
    assert (upright.width, upright.height, upright.sample_aspect) == (240, 320, (11, 16))


# ---- colours

PATCHES = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (250, 250, 250), (8, 8, 8), (200, 180, 30)], float)
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Shares of red and blue by H.273's number of the matrix."""


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_colours_are_right_within_3_of_255(tmp_path, matrix, full, kind):
    """BT.2020 was read as BT.601: green off by 20."""
    red, blue = WEIGHTS[matrix]
    r, g, b = PATCHES.T
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    values = np.stack([y, u + 128, v + 128] if full else [16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255])
    deep = "10" in kind
    frame = av.VideoFrame(len(PATCHES) * 32, 64, kind)
    for plane, row in zip(frame.planes, values, strict=True):
        samples = np.frombuffer(memoryview(plane), np.uint16 if deep else np.uint8).reshape(plane.height, -1)
        line = np.repeat(np.rint(row * (4 if deep else 1)), plane.width // len(PATCHES))
        samples[:, : len(line)] = line
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    played = play(
        write(
            tmp_path / "c.mp4", [frame], options={"qp": "0", "preset": "ultrafast"},
            colorspace=matrix, color_range=2 if full else 1,
        )
    )  # fmt: skip
    seen = to_bgr(played.last, played.geometries[0])[32, 16::32, ::-1].astype(int)
    assert np.abs(seen - PATCHES).max() <= 3, seen


# ---- interlaced


def combed(number):
    """Two fields of a moving edge, the lower one first, as libx264 tags it without FFmpeg's own flag."""
    luma = np.full((128, 128), 40, np.uint8)
    luma[1::2, : 10 + 8 * number] = 200
    luma[0::2, : 14 + 8 * number] = 200
    picture = np.full((192, 128), 128, np.uint8)
    picture[:128] = luma
    return av.VideoFrame.from_ndarray(picture, "yuv420p")


@pytest.mark.parametrize("deinterlace", [False, True])
def test_interlaced_frames_are_flagged_or_deinterlaced(tmp_path, deinterlace):
    options = {"x264-params": "bff=1", "qp": "0"}
    file = write(tmp_path / "c.ts", (combed(n) for n in range(8)), options=options)
    played = play(file, deinterlace=deinterlace)
    assert len(played.flags) == 8
    assert set(played.gaps_ms) == {40}
    assert {bool(flags & Flags.INTERLACED) for flags in played.flags} == {not deinterlace}
    luma = planes(played.last, played.geometries[0])[0].astype(int)
    combs = np.abs(luma[2:-2:2] - luma[3:-1:2]).mean()
    assert (combs < 2) == deinterlace


# ---- which stream


def add_sound(out):
    sound = out.add_stream("aac", rate=8000)
    sound.layout = "mono"
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    samples.sample_rate, samples.pts = 8000, 0
    return [*sound.encode(samples), *sound.encode(None)]


def test_reasons_have_words_and_no_numbers(tmp_path):
    """The status said "[Errno 1094995529] Invalid data found when processing input"."""
    (tmp_path / "empty.mp4").touch()
    for name, words in (("empty.mp4", "Invalid data found when"), ("gone.mp4", "No such file or directory")):
        with pytest.raises(CameraError, match=rf"^file {name}: {words}.*/{name}'$"):
            FileSource(tmp_path / name).open(ASKED, Stop())


def test_a_file_without_video_is_refused_with_what_it_holds(tmp_path):
    file = tmp_path / "c.mp4"
    with av.open(str(file), "w") as out:
        for packet in add_sound(out):
            out.mux(packet)
    with pytest.raises(CameraError, match=r"file c\.mp4: no video in it, only 1 audio"):
        FileSource(file).open(ASKED, Stop())


@pytest.mark.parametrize("kind", ["video", "sound"])
def test_a_cover_picture_is_not_the_video(tmp_path, kind, caplog):
    from av.stream import Disposition

    file = tmp_path / "c.mp4"
    with av.open(str(file), "w") as out:
        packets = add_sound(out)
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 640, 640, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        packets += [*cover.encode(av.VideoFrame(640, 640, "yuvj420p")), *cover.encode(None)]
        if kind == "video":
            video = out.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
            for number in range(5):
                packets += video.encode(numbered(number))
            packets += video.encode(None)
        for packet in packets:
            out.mux(packet)
    if kind == "sound":
        with pytest.raises(CameraError, match="no video in it, only 1 audio, 1 cover picture"):
            FileSource(file).open(ASKED, Stop())
        return
    with caplog.at_level("INFO"):
        assert play(file).numbers == list(range(5))
    assert "1 audio, 1 cover picture, 1 video; stream" in caplog.text


def test_of_several_videos_the_best_is_shown_and_the_log_says_so(tmp_path, caplog):
    file = tmp_path / "c.mkv"
    with av.open(str(file), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, size in zip(streams, ((160, 120), (320, 240)), strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(5):
            for stream in streams:
                out.mux(stream.encode(numbered(number, (stream.width, stream.height))))
        for stream in streams:
            out.mux(stream.encode(None))
    with caplog.at_level("INFO"):
        played = play(file)
    assert played.numbers == list(range(5))
    assert played.geometries[0].width == 320
    assert "2 video; stream 1 is shown" in caplog.text
