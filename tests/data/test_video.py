"""Frames are found exactly, whatever the codec, order of decoding, key frames, time base and start of a video."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.synthetic import picture, read_picture
from wam.data.errors import MissingFileError, TruncatedVideoError
from wam.data.video import VideoFile, count_frames, read_frames
from wam.data.video_pool import VideoPool

FRAMES = 90
PICTURES = np.stack([picture(row, 3, 1) for row in range(FRAMES)])


def write(
    path: Path,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: Fraction | int = 30,
    time_base: Fraction | None = None,
    start: int = 0,
    frames: int = FRAMES,
    skip: tuple[int, ...] = (),
) -> Path:
    """A video whose frame i is picture i; `start` counts frames, `skip` leaves frames out but not their time."""
    tick = time_base or Fraction(1, 1) / fps
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        for number in range(frames):
            if number not in skip:
                frame = av.VideoFrame.from_ndarray(PICTURES[number], format="rgb24")
                frame.pts, frame.time_base = round((start + number) / fps / tick), tick
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


X264 = {
    "intra only": {"g": "1", "bf": "0"},
    "short groups": {"g": "2", "bf": "0"},
    "one group": {"g": "500", "bf": "0"},
    "B-frames": {"g": "12", "bf": "3", "b_strategy": "0"},
    "many B-frames": {"g": "40", "bf": "8", "b_strategy": "0", "x264-params": "b-pyramid=strict:ref=4"},
    "open groups": {"g": "10", "bf": "3", "b_strategy": "0", "x264-params": "open-gop=1:scenecut=0"},
    "uneven groups": {"g": "30", "bf": "2", "x264-params": "scenecut=80:min-keyint=3"},
}
VIDEOS = {name: {"options": options | {"preset": "ultrafast"}} for name, options in X264.items()} | {
    "fine time base": {"time_base": Fraction(1, 90000), "options": {"g": "12", "bf": "2"}},
    "milliseconds": {"time_base": Fraction(1, 1000), "options": {"g": "12", "bf": "2"}},
    "ntsc": {"fps": Fraction(30000, 1001), "options": {"g": "12", "bf": "2"}},
    "late start": {"start": 7, "options": {"g": "12", "bf": "0"}},
    "late start with B-frames": {"start": 100, "time_base": Fraction(1, 90000), "options": {"g": "12", "bf": "3"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=20:bframes=4:open-gop=1:log-level=none"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "q": "2"}},
    "av1": {"codec": "libsvtav1", "options": {"g": "16", "preset": "12", "crf": "20", "svtav1-params": "lp=1"}},
}


@pytest.fixture(scope="module", autouse=True)
def usual_priority() -> Iterator[None]:
    """Run by root, the AV1 encoder makes the calling thread one of real time; what follows shall share the machine."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, *before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames these are."""
    assert all(read_picture(frame)[1:] == (3, 1) for frame in frames)
    return [read_picture(frame)[0] for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("name", VIDEOS)
def test_every_frame_is_found(folder: Path, name: str, suffix: str) -> None:
    """In order, backwards, one by one with a new decoder, and in random jumps of one decoder."""
    path = write(folder / f"{name}.{suffix}", **VIDEOS[name])
    fps = float(VIDEOS[name].get("fps", 30))
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, fps, range(FRAMES))) == list(range(FRAMES))
    assert numbers(read_frames(path, fps, [40, 3, 40, 88, 2])) == [40, 3, 40, 88, 2]
    for number in (0, 1, 9, 11, 12, 13, 37, FRAMES - 1):
        assert numbers(read_frames(path, fps, [number])) == [number]
    rng = np.random.default_rng(0)
    with VideoFile(path, fps) as video:
        for _ in range(25):
            wanted = rng.integers(0, FRAMES, size=rng.integers(1, 4))
            assert numbers(video.frames(wanted)) == wanted.tolist()
        for number in range(FRAMES - 1, 0, -7):
            assert numbers(video.frames([number])) == [number]


def test_pixels_do_not_depend_on_the_way_to_them(folder: Path) -> None:
    path = write(folder / "way.mp4", options={"g": "12", "bf": "3", "b_strategy": "0"})
    straight = read_frames(path, 30, range(FRAMES))
    jumped = np.stack([read_frames(path, 30, [number])[0] for number in range(0, FRAMES, 5)])
    np.testing.assert_array_equal(jumped, straight[::5])


@pytest.mark.parametrize("wanted", [89, 90, 200])
def test_frames_behind_the_end_are_missing(folder: Path, wanted: int) -> None:
    path = write(folder / f"short{wanted}.mp4", frames=89)
    with VideoFile(path, 30) as video:
        with pytest.raises(
            TruncatedVideoError, match=rf"short{wanted}.mp4: frame {wanted} is not there.*it ends there"
        ):
            video.frames([5, wanted])
        assert numbers(video.frames([88, 5])) == [88, 5]


@pytest.mark.parametrize("before", ([], [38], [10, 60]))
def test_a_skipped_frame_is_missing_and_the_others_are_not_shifted(folder: Path, before: list[int]) -> None:
    path = write(folder / f"gap{len(before)}.mp4", skip=(40, 41), options={"g": "12", "bf": "2"})
    with VideoFile(path, 30) as video:
        assert before == [] or numbers(video.frames(before)) == before
        with pytest.raises(
            TruncatedVideoError, match=r"frame 40 is not there \(the last one before is 39, the next one"
        ):
            video.frames([39, 40])
        assert numbers(video.frames([39, 42, 89])) == [39, 42, 89]


def test_another_rate_is_noticed(folder: Path) -> None:
    path = write(folder / "rate.mp4", fps=25)
    with pytest.raises(TruncatedVideoError, match="frame 2 is not there.*has another fps"):
        read_frames(path, 30, range(10))


def test_an_episode_may_begin_between_frames(folder: Path) -> None:
    path = write(folder / "between.mp4")
    assert numbers(read_frames(path, 30, 20.2 + np.arange(3))) == [20, 21, 22]
    assert numbers(read_frames(path, 30, 19.8 + np.arange(3))) == [20, 21, 22]
    with pytest.raises(TruncatedVideoError, match="frame 20.5 is not there"):
        read_frames(path, 30, [20.5])


def test_damage_inside_a_video_is_noticed(folder: Path) -> None:
    """Bytes that the container does not look at."""
    path = write(folder / "damaged.mp4", options={"g": "12", "bf": "2"})
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in np.linspace(0.2, 0.7, 6):
        begin = round(len(content) * place)
        noise = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
        (folder / "broken.mp4").write_bytes(content[:begin] + noise + content[begin + 400 :])
        with pytest.raises(TruncatedVideoError, match=r"broken.mp4"):
            read_frames(folder / "broken.mp4", 30, range(FRAMES))


@pytest.mark.parametrize("name", ["short groups", "one group", "many B-frames", "open groups", "hevc", "mpeg4"])
def test_wherever_a_video_is_cut_off_no_frame_is_wrong(folder: Path, name: str) -> None:
    """Its index stands in front, so that it can be opened and promises everything."""
    plain, path = write(folder / f"cut {name}.mp4", **VIDEOS[name]), folder / f"front {name}.mp4"
    with av.open(str(plain)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    whole, content = read_frames(path, 30, range(FRAMES)), path.read_bytes()
    right = lost = 0
    frames_from = content.index(b"mdat") + 200
    for size in np.random.default_rng(1).integers(frames_from, len(content), 6):
        path.write_bytes(content[:size])
        assert count_frames(path) == FRAMES
        with VideoFile(path, 30) as video:
            for number in range(0, FRAMES, 3):
                try:
                    np.testing.assert_array_equal(video.frames([number])[0], whole[number])
                    right += 1
                except TruncatedVideoError:
                    lost += 1
    assert right > 20 and lost > 20


def test_frames_that_nobody_needs_are_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    packets = VideoFile._packets

    def counting(self: VideoFile) -> Iterator[object]:
        nonlocal decoded
        for packet in packets(self):
            decoded += 1
            yield packet

    monkeypatch.setattr(VideoFile, "_packets", counting)
    short = write(folder / "needed2.mp4", options={"g": "2", "bf": "0"})
    longer = write(folder / "needed12.mp4", options={"g": "12", "bf": "0"})
    for path, asked, needed in (
        (short, range(0, 40, 2), 20),  # key frames only
        (short, range(1, 41, 2), 40),
        (longer, [0, 30], 1 + 7),  # on from key frame 24
        (longer, [3, 14], 4 + 3),  # without a seek: frames 4 to 11 are passed over
        (longer, range(36), 36),
    ):
        decoded = 0
        assert numbers(read_frames(path, 30, asked)) == list(asked)
        assert decoded == needed


def test_a_missing_frame_among_those_passed_over_is_named(folder: Path) -> None:
    path = write(folder / "passed.mp4", skip=(40, 41), options={"g": "12", "bf": "0"})
    with pytest.raises(
        TruncatedVideoError, match=r"frame 40 is not there \(the last one before is 39, the next one is"
    ):
        read_frames(path, 30, [36, 40])


def test_files_that_are_no_videos(folder: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere.mp4"):
        VideoFile(folder / "nowhere.mp4", 30)
    (folder / "text.mp4").write_text("no video")
    with pytest.raises(TruncatedVideoError, match=r"text.mp4: not a complete video"):
        VideoFile(folder / "text.mp4", 30)


# -- several threads and processes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(folder: Path) -> list[Path]:
    """Five videos; in number k the first line of the pictures is shifted by k frames."""
    return [write(folder / f"pool{k}.mp4", start=k, options={"g": "12", "bf": "2"}) for k in range(5)]


def test_threads_share_a_pool(videos: list[Path]) -> None:
    pool, most = VideoPool(limit=3), 0

    def work(seed: int) -> int:
        nonlocal most
        rng = np.random.default_rng(seed)
        for _ in range(15):
            wanted = rng.integers(0, FRAMES, size=3)
            found = pool.frames(videos[rng.integers(5)], 30, wanted)
            assert numbers(found) == wanted.tolist()
            most = max(most, pool.num_open)
        return seed

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == list(range(8))
    assert most == 3
    assert pool.num_open <= 3
    pool.close()
    assert pool.num_open == 0


def test_threads_read_one_video(videos: list[Path]) -> None:
    pool = VideoPool(limit=4)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: pool.frames(videos[0], 30, np.array([number])), range(FRAMES)))
    assert numbers(np.concatenate(found)) == list(range(FRAMES))


def test_an_opened_video_is_used_again(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    begin = VideoFile.__init__

    def counting(self: VideoFile, path: Path, fps: float) -> None:
        opened.append(path)
        begin(self, path, fps)

    monkeypatch.setattr(VideoFile, "__init__", counting)
    pool = VideoPool(limit=2)
    for number in (0, 1, 0, 1, 2, 1, 0):
        pool.frames(videos[number], 30, np.array([5]))
    assert [path.name for path in opened] == ["pool0.mp4", "pool1.mp4", "pool2.mp4", "pool0.mp4"]


def test_a_failed_video_is_not_lent_again(videos: list[Path]) -> None:
    pool = VideoPool(limit=1)
    for _ in range(3):
        with pytest.raises(TruncatedVideoError):
            pool.frames(videos[0], 30, np.array([FRAMES]))
        with pytest.raises(MissingFileError):
            pool.frames(videos[0].with_name("nowhere.mp4"), 30, np.array([0]))
    assert pool.num_open == 0
    assert numbers(pool.frames(videos[0], 30, np.array([1]))) == [1]


INHERITED = VideoPool()


def read_in_child(seed: int, path: str) -> bool:
    rng = np.random.default_rng(seed)
    wanted = [rng.integers(0, FRAMES, size=2) for _ in range(20)]
    return all(numbers(INHERITED.frames(Path(path), 30, rows)) == rows.tolist() for rows in wanted)


def test_a_forked_process_opens_its_own(videos: list[Path]) -> None:
    """Parent and children read the same opened file at once; a shared file position would mix them up."""
    path = str(videos[0])
    assert read_in_child(0, path)
    with multiprocessing.get_context("fork").Pool(2) as children:
        results = [children.apply_async(read_in_child, (seed, path)) for seed in (1, 2)]
        assert read_in_child(3, path)
        assert all(result.get(timeout=60) for result in results)


def test_a_pickled_pool_begins_empty(videos: list[Path]) -> None:
    pool = VideoPool(limit=3)
    pool.frames(videos[0], 30, np.array([0]))
    copy = pickle.loads(pickle.dumps(pool))
    assert (copy.limit, copy.num_open) == (3, 0)
    assert numbers(copy.frames(videos[0], 30, np.array([7]))) == [7]
