"""Films: exact frames by number in every container, what a film is, broken ones, and what samplers choose."""

from __future__ import annotations

import socket
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fieldtune.errors import UserError
from fieldtune.sources.video import Film, MediaError, check, decode, fps, probe, sample_16, uniform

from .films import bars, cut, number_of, turn_film, write_film


def numbers(path: Path, indices: list[int]) -> list[int]:
    return [number_of(frame) for frame in decode(path, indices)]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.mov"])
def test_frames_by_number_in_any_order(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name)
    film = probe(path)
    assert (film.frames, film.width, film.height) == (30, 64, 48)
    assert film.fps == pytest.approx(10, rel=0.05) and film.seconds == pytest.approx(3, abs=0.11)
    assert numbers(path, list(range(30))) == list(range(30))
    assert numbers(path, [17, 3, 3, 29, 0]) == [17, 3, 3, 29, 0]
    assert check(path) == film


def test_a_variable_rate_counts_frames_not_time(tmp_path: Path) -> None:
    times = [0, 40, 80, 1000, 1040, 3000, 3040, 3080, 3120, 4000]
    path = write_film(tmp_path / "film.mp4", range(10), times=times)
    film = probe(path)
    assert film.frames == 10 and film.seconds == pytest.approx(4, abs=1.1)
    assert numbers(path, [0, 4, 5, 9]) == [0, 4, 5, 9]


def test_an_animation(tmp_path: Path) -> None:
    pictures = [Image.fromarray(bars(number, 33, 65)) for number in range(1, 8)]
    pictures[0].save(tmp_path / "film.gif", save_all=True, append_images=pictures[1:], duration=100, loop=0)
    film = probe(tmp_path / "film.gif")
    assert (film.frames, film.width, film.height) == (7, 65, 33)
    assert film.fps == pytest.approx(10, rel=0.01)
    assert numbers(tmp_path / "film.gif", [6, 0]) == [7, 1]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("odd.mp4", {"pixels": "yuv444p", "height": 47, "width": 61}),
        ("gray.mp4", {"pixels": "gray"}),
        ("alpha.mov", {"codec": "png", "pixels": "rgba", "options": {}}),
        ("motion.avi", {"codec": "mjpeg", "pixels": "yuvj420p", "options": {}}),
    ],
)
def test_odd_sizes_gray_and_alpha(tmp_path: Path, name: str, more: dict[str, object]) -> None:
    path = write_film(tmp_path / name, range(5), **more)  # type: ignore[arg-type]
    frames = decode(path, [4, 1])
    assert frames.shape == (2, more.get("height", 48), more.get("width", 64), 3) and frames.dtype == np.uint8
    assert [number_of(frame) for frame in frames] == [4, 1]
    assert probe(path).frames == 5


def test_a_film_is_turned_as_it_is_shown(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [77])
    upright = decode(path, [0])[0]
    turn_film(path)
    film = probe(path)
    assert (film.width, film.height) == (48, 64)
    assert np.array_equal(decode(path, [0])[0], np.rot90(upright, -1))


def test_only_the_frames_that_are_needed_are_kept(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [number % 256 for number in range(400)], height=240, width=320)
    code = (
        "import resource, sys; from pathlib import Path; from fieldtune.sources.video import decode\n"
        "decode(Path(sys.argv[1]), [0]); first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "decode(Path(sys.argv[1]), [399]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 30_000, done.stderr  # kilobytes; all frames are 92,160


def mp4(folder: Path) -> Path:
    return write_film(folder / "film.mp4", range(60), container={"movflags": "faststart"})


def silent(folder: Path) -> Path:
    with wave.open(str(folder / "film.mp4"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    return folder / "film.mp4"


def text(folder: Path) -> Path:
    (folder / "film.mp4").write_text("These are words.\n" * 100)
    return folder / "film.mp4"


def empty(folder: Path) -> Path:
    (folder / "film.mp4").touch()
    return folder / "film.mp4"


def frameless(folder: Path) -> Path:
    with av.open(str(folder / "film.mkv"), "w") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        output.start_encoding()
    return folder / "film.mkv"


def a_folder(folder: Path) -> Path:
    (folder / "film.mp4").mkdir()
    return folder / "film.mp4"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: cut(mp4(folder), 0.6), ""),
        (lambda folder: cut(write_film(folder / "film.mp4"), 0.5), "is not a film that can be read"),
        (lambda folder: cut(write_film(folder / "film.mkv", range(60)), 0.5), ""),
        (text, "is not a film that can be read (Invalid data found"),
        (empty, "is not a film that can be read"),
        (silent, "has no video stream"),
        (frameless, ""),
        (a_folder, "is a folder"),
        (lambda folder: folder / "film.mp4", "is not a film that can be read (No such file"),
        (lambda folder: folder / "no\nfilm.mp4", ""),
    ],
    ids=["cut", "no index", "cut mkv", "text", "empty", "sound", "frameless", "folder", "missing", "line break"],
)
def test_what_is_no_whole_film_is_one_line(tmp_path: Path, make: object, reason: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    for read in (probe, check, lambda path: decode(path, [59])):
        with pytest.raises(MediaError) as caught:
            read(path)
        message = str(caught.value)
        assert "film." in message and "\n" not in message and len(message) < 400
        assert reason in message


def test_a_frame_that_is_not_there(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", range(5))
    with pytest.raises(MediaError, match="has 5 frames that can be decoded; frame 5 was asked for"):
        decode(path, [0, 5])
    for wrong in ([], [-1]):
        with pytest.raises(ValueError, match="numbers of frames"):
            decode(path, wrong)


def test_a_playlist_in_disguise_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "film.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(MediaError):
            probe(tmp_path / "film.m3u8")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"film.mp4: films need the package av; pip install 'fieldtune\[video\]'"):
        probe(tmp_path / "film.mp4")


def film(frames: int, rate: float) -> Film:
    return Film(frames, rate, frames / rate, 64, 48)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (film(900, 30), [30 * n for n in (0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29)]),  # 30 candidates
        (film(510, 30), [30 * n for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16)]),  # 17
        (film(480, 30), list(range(0, 480, 30))),  # 16
        (film(300, 30), list(range(0, 286, 19))),  # 10: the stride is 299 // 15
        (film(31, 30), list(range(0, 31, 2))),  # 2: the stride is 30 // 15
        (film(17, 30), list(range(16))),
        (film(16, 30), list(range(16))),
        (film(5, 30), [0, 1, 2, 3, 4]),
        (film(2, 30), [0, 1]),
        (film(1, 30), [0]),
        (film(20, 0.2), [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 19]),  # slower than one a second: all
        (film(250, 12.5), [12 * n for n in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20)]),  # a stride of 12
    ],
)
def test_sixteen_frames(given: Film, wanted: list[int]) -> None:
    assert sample_16(given) == wanted


def test_even_and_timed_samples() -> None:
    assert uniform(4)(film(10, 5)) == [0, 3, 6, 9]
    assert uniform(4)(film(3, 5)) == [0, 1, 2]
    assert uniform(1)(film(10, 5)) == [0]
    assert fps(2, 100)(film(30, 10)) == [0, 5, 10, 15, 20, 25]
    assert fps(2, 3)(film(30, 10)) == [0, 10, 25]
    assert fps(4, 100)(film(10, 10)) == [0, 2, 5, 7]
    assert fps(100, 100)(film(3, 10)) == [0, 1, 2]
    with pytest.raises(ValueError):
        uniform(0)
    with pytest.raises(ValueError):
        fps(0, 1)
