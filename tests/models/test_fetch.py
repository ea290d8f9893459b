from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from fieldtune.errors import UserError
from fieldtune.models.fetch import fetch

from .servers import Served, serve

BODY = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


def flipped(body: bytes, position: int) -> bytes:
    return body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".f.lock"}


def test_a_file_is_fetched_once_and_its_sum_recorded(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve(Served({"f": BODY}, md5=True)) as server:
        target = fetch([f"{server.url}/f"], tmp_path / "f", progress=lambda *step: seen.append(step))
        fetch([f"{server.url}/f"], target)
        fetch([f"{server.url}/f"], target, sha256=SHA256.upper())
        assert len(server.requests) == 1
    assert target.read_bytes() == BODY
    assert leftovers(tmp_path) == {"f", "f.sha256"}
    assert (tmp_path / "f.sha256").read_text() == f"{SHA256}  f\n"
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_changed_target_is_fetched_anew(tmp_path: Path) -> None:
    with serve(Served({"f": BODY})) as server:
        target = fetch([f"{server.url}/f"], tmp_path / "f")
        target.write_bytes(flipped(BODY, 7))
        assert fetch([f"{server.url}/f"], target).read_bytes() == BODY
        (tmp_path / "f.sha256").unlink()
        fetch([f"{server.url}/f"], target)
        assert len(server.requests) == 3


def test_cut_connections_are_resumed(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, cuts={"f": [100_000, 50_000]})) as server:
        fetch([f"{server.url}/f"], tmp_path / "f", sha256=SHA256)
        assert server.sent["f"] == len(BODY)
        ranges = [headers["Range"] for _, _, headers in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_resumes(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, cuts={"f": [100_000]})) as server:
        with pytest.raises(UserError, match="100000 bytes are kept"):
            fetch([f"{server.url}/f"], tmp_path / "f", retries=0)
        assert not (tmp_path / "f").exists()
        fetch([f"{server.url}/f"], tmp_path / "f", retries=0)
        assert server.sent["f"] == len(BODY)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, cuts={"f": [100_000]})) as server:
        with pytest.raises(UserError):
            fetch([f"{server.url}/f"], tmp_path / "f", retries=0)
        server.files["f"] = BODY[::-1]
        fetch([f"{server.url}/f"], tmp_path / "f", retries=0)
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("served", [Served(ranges=False), Served(etags=False), Served(ranges=False, lengths=False)])
def test_without_ranges_or_validators_it_starts_over(tmp_path: Path, served: Served) -> None:
    served.files, served.cuts = {"f": BODY}, {"f": [100_000] if served.lengths else []}
    with serve(served):
        fetch([f"{served.url}/f"], tmp_path / "f", sha256=SHA256)
        assert served.sent["f"] == len(BODY) + (100_000 if served.lengths else 0)


def test_a_server_that_always_cuts_is_given_up(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, ranges=False, cuts={"f": [1000] * 9})) as server:
        with pytest.raises(UserError, match="/f: "):
            fetch([f"{server.url}/f"], tmp_path / "f", retries=1)
        assert len(server.requests) == 2


def test_the_next_url_continues_a_file_of_equal_size(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, cuts={"f": [100_000]})) as first, serve(Served({"f": BODY})) as second:
        fetch([f"{first.url}/f", f"{second.url}/f"], tmp_path / "f", sha256=SHA256, retries=0)
        assert second.sent["f"] == len(BODY) - 100_000
    assert (tmp_path / "f").read_bytes() == BODY


def test_the_next_url_with_another_size_starts_over(tmp_path: Path) -> None:
    other = Served({"f": BODY[:-1]}, cuts={"f": [100_000]})
    with serve(other) as first, serve(Served({"f": BODY})) as second:
        fetch([f"{first.url}/f", f"{second.url}/f"], tmp_path / "f", sha256=SHA256, retries=0)
        assert [headers["Range"] for _, _, headers in second.requests] == ["bytes=100000-", None]
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_joined_file_that_is_wrong_is_fetched_whole(tmp_path: Path) -> None:
    bad = Served({"f": flipped(BODY, 5)}, cuts={"f": [100_000]})
    with serve(bad) as first, serve(Served({"f": BODY})) as second:
        fetch([f"{first.url}/f", f"{second.url}/f"], tmp_path / "f", sha256=SHA256, retries=0)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_wrong_sum_turns_to_the_next_url(tmp_path: Path) -> None:
    with serve(Served({"f": flipped(BODY, 5)})) as first, serve(Served({"f": BODY})) as second:
        fetch([f"{first.url}/f", f"{second.url}/f"], tmp_path / "f", sha256=SHA256)
        with pytest.raises(UserError, match=r"SHA-256 is [0-9a-f]{64}, expected") as caught:
            fetch([f"{first.url}/f"], tmp_path / "g", sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == BODY
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("g*"))


def test_the_stated_md5_is_verified(tmp_path: Path) -> None:
    with serve(Served({"f": BODY}, md5=True, cuts={"f": [100_000]})) as server:
        with pytest.raises(UserError):
            fetch([f"{server.url}/f"], tmp_path / "f", retries=0)
        part = tmp_path / "f.part"
        part.write_bytes(flipped(part.read_bytes(), 3))
        fetch([f"{server.url}/f"], tmp_path / "f")
        assert server.sent["f"] == 2 * len(BODY)  # joined, found wrong, fetched whole
    assert (tmp_path / "f").read_bytes() == BODY


def test_every_url_is_named_with_its_reason(tmp_path: Path) -> None:
    with serve(Served(status={"f": 500})) as first, serve(Served()) as second:
        urls = [f"{first.url}/f", f"{second.url}/f", "http://127.0.0.1:9/f"]
        with pytest.raises(UserError) as caught:
            fetch(urls, tmp_path / "f", retries=0)
    message = str(caught.value)
    assert f"{urls[0]}: HTTP 500" in message
    assert f"{urls[1]}: HTTP 404" in message
    assert f"{urls[2]}: no connection" in message
    assert "\n" not in message


def test_an_empty_file_and_no_url(tmp_path: Path) -> None:
    with serve(Served({"f": b""})) as server:
        assert fetch([f"{server.url}/f"], tmp_path / "f").read_bytes() == b""
    with pytest.raises(UserError, match="at least one"):
        fetch([], tmp_path / "g")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "f.part").symlink_to("/dev/full")
    with serve(Served({"f": BODY})) as server, pytest.raises(UserError, match="the disk is full"):
        fetch([f"{server.url}/f"], tmp_path / "f")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch(["http://127.0.0.1:9/f"], tmp_path / "a" / "f")
