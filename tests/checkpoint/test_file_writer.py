"""Bytes come out as they went in, whatever the alignment and whatever the file system refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from surgeon.checkpoint import file_writer, pages
from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.file_writer import Writer
from surgeon.checkpoint.pages import BUFFER, DIRECT, PAGE, Reader, extents
from surgeon.errors import CheckpointError

SMALL = 4 * PAGE
"""A buffer so small that a few pages fill several of them."""

pytestmark = pytest.mark.skipif(not DIRECT, reason="no direct I/O on this system")


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT)


def refuse_opening(patch: pytest.MonkeyPatch) -> None:
    """As tmpfs did until Linux 6.6, and many a FUSE file system: a file may have been made all the same."""
    real = os.open

    def opening(path: object, flags: int, *rest: int, **at: int) -> int:
        if flags & DIRECT:
            os.close(real(path, flags & ~DIRECT, *rest, **at))
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *rest, **at)

    patch.setattr(os, "open", opening)


def refuse_requests(patch: pytest.MonkeyPatch) -> None:
    """As overlay and network file systems do: the flag is taken, and the first request refused."""

    def refusing(real: Callable[..., int]) -> Callable[..., int]:
        def request(fd: int, *rest: object) -> int:
            if is_direct(fd):
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(fd, *rest)

        return request

    patch.setattr(os, "preadv", refusing(os.preadv))
    patch.setattr(os, "pwrite", refusing(os.pwrite))


def refuse_copying(patch: pytest.MonkeyPatch) -> None:
    """Kernels before 5.19 do not copy between file systems."""
    refuse_opening(patch)

    def copy(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    patch.setattr(os, "copy_file_range", copy)


def read_in_part(patch: pytest.MonkeyPatch) -> None:
    """A request may give less than it was asked for, as over a network."""
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        length = len(buffers[0])
        return real(
            fd, [buffers[0][: max(PAGE, length // 2 // PAGE * PAGE) if is_direct(fd) else length // 2 + 1]], offset
        )

    patch.setattr(os, "preadv", preadv)


def nothing_cached(patch: pytest.MonkeyPatch) -> None:
    """As on kernels that do not tell, and with files that have not been read for long."""
    patch.setattr(pages, "is_cached", lambda *_: False)


WAYS = {
    "past the cache": lambda patch: None,
    "refused at opening": refuse_opening,
    "refused at the first request": refuse_requests,
    "no copying in the kernel": refuse_copying,
    "from the disk": nothing_cached,
    "in part": read_in_part,
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request.param(monkeypatch)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "BUFFER", SMALL)
    monkeypatch.setattr(file_writer, "BUFFER", SMALL)


def sources(folder: Path, sizes: list[int]) -> dict[Path, bytes]:
    contents = {}
    for number, size in enumerate(sizes):
        data = random.Random(number).randbytes(size)
        path = folder / f"source{number}"
        path.write_bytes(data)
        contents[path] = data
    return contents


def some_spans(contents: dict[Path, bytes], seed: int) -> Iterator[ByteRange]:
    """Neighbours, gaps of a few bytes and of pages, whole pages, steps back, nothing at all."""
    rng = random.Random(seed)
    path, at = next(iter(contents)), 0
    for _ in range(rng.randrange(1, 40)):
        step = rng.choice([0, 0, 0, 3, 64, PAGE - 1, PAGE, 5 * PAGE, -rng.randrange(2 * SMALL)])
        if rng.random() < 0.1:
            path, at = rng.choice(list(contents)), 0
        at = min(max(0, at + step), len(contents[path]))
        length = rng.choice([0, 1, 7, 100, PAGE - 1, PAGE, PAGE + 1, SMALL, 3 * SMALL + 5])
        length = min(length, len(contents[path]) - at)
        yield ByteRange(path, at, length)
        at += length


@pytest.mark.usefixtures("way", "small_buffers")
@pytest.mark.parametrize("seed", range(12))
def test_bytes_arrive_whatever_their_alignment(tmp_path: Path, seed: int) -> None:
    contents = sources(tmp_path, [40 * SMALL, 10 * SMALL + 1, 3 * PAGE + 4095])
    rng = random.Random(seed)
    spans, after = list(some_spans(contents, seed)), list(some_spans(contents, seed + 1000))
    longest = max(range(len(spans)), key=lambda index: spans[index].length)
    in_place = (spans[longest].offset - sum(span.length for span in spans[:longest])) % PAGE
    head = rng.randbytes(rng.choice([0, 1, 1000, PAGE, SMALL + 3, *[in_place] * 5]))
    counted: list[int] = []
    with Writer(tmp_path / "out") as writer:
        writer.write(head)
        writer.copy(spans, counted.append)
        writer.write(b"between")
        writer.copy(after, counted.append)

    def stored(wanted: list[ByteRange]) -> bytes:
        return b"".join(contents[span.path][span.offset : span.offset + span.length] for span in wanted)

    assert (tmp_path / "out").read_bytes() == head + stored(spans) + b"between" + stored(after)
    assert sum(counted) == sum(span.length for span in spans + after)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shift", [0, 8, 1, 4095])
def test_a_run_of_several_buffers_is_copied_whole(tmp_path: Path, shift: int) -> None:
    ((path, data),) = sources(tmp_path, [3 * BUFFER + 4567]).items()
    with Writer(tmp_path / "out") as writer:
        writer.write(bytes(shift))
        writer.copy([ByteRange(path, 5, BUFFER), ByteRange(path, BUFFER + 5, len(data) - BUFFER - 5)])
    assert (tmp_path / "out").read_bytes() == bytes(shift) + data[5:]


@pytest.mark.usefixtures("way")
def test_a_file_of_no_bytes_can_be_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs here")
def test_a_file_in_memory_is_copied_to_the_disk_and_back(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(BUFFER + 12345)
    inside = Path("/dev/shm") / f"surgeon-test-{os.getpid()}"
    (tmp_path / "source").write_bytes(data)
    try:
        with Writer(inside) as writer:
            writer.copy([ByteRange(tmp_path / "source", 3, len(data) - 3)])
        assert inside.read_bytes() == data[3:]
        with Writer(tmp_path / "out") as writer:
            writer.copy([ByteRange(inside, 7, len(data) - 10)])
        assert (tmp_path / "out").read_bytes() == data[10:]
    finally:
        inside.unlink(missing_ok=True)


def test_a_file_that_really_refuses_direct_io_is_read() -> None:
    reader = Reader(Path("/proc/self/cmdline"))
    expected = Path("/proc/self/cmdline").read_bytes()
    (extent,) = extents([ByteRange(reader.path, 1, len(expected) - 1)])
    assert b"".join(reader.read(extent)) == expected[1:]
    reader.close()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("length", [100, PAGE, 3 * BUFFER])
def test_a_source_that_has_shrunk_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "source"
    path.write_bytes(bytes(length))
    with pytest.raises(CheckpointError, match=f"ends at byte {length}"), Writer(tmp_path / "out") as writer:
        writer.copy([ByteRange(path, 0, length + 10)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error_and_not_a_short_file() -> None:
    with pytest.raises(OSError, match="No space left"), Writer(Path("/dev/full")) as writer:
        writer.write(bytes(10 * BUFFER))
    with pytest.raises(OSError, match="No space left"), Writer(Path("/dev/full")) as writer:
        writer.write(b"only noticed at the end")


def test_neighbouring_tensors_are_read_together_without_reading_extra_pages() -> None:
    path = Path("x")
    places = [(0, 100), (100, 50), (214, 10), (224 + PAGE - 1, 1), (2 * PAGE + 224, 5), (0, 5)]
    merged = list(extents(ByteRange(path, offset, length) for offset, length in places))
    assert [extent.runs for extent in merged] == [
        [(0, 150), (214, 224), (223 + PAGE, 224 + PAGE)],
        [(2 * PAGE + 224, 2 * PAGE + 229)],
        [(0, 5)],
    ]


COUNT = """
import os, sys
from pathlib import Path
from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.file_writer import Writer

def count(name):
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())[name])

source, cold = Path(sys.argv[1]), sys.argv[3] == "cold"
spans = [ByteRange(source, *map(int, span.split(":"))) for span in sys.argv[4:]]
with source.open("rb") as file:
    file.read()
    if cold:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
with Writer(Path(sys.argv[2])) as writer:  # what the first call loads of Python and libc is not to be counted
    writer.copy([ByteRange(Path(sys.executable), 0, 10_000)])
with Writer(Path(sys.argv[2])) as writer:
    read, fetched = count("rchar"), count("read_bytes")
    writer.copy(spans)
    print(count("rchar") - read, count("read_bytes") - fetched)
"""
COUNTING_ITSELF = 500
"""Bytes that are read from /proc in order to count."""
CODE = BUFFER // 2
"""Bytes of programs that a busy machine may have to fetch again meanwhile."""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count here")
@pytest.mark.parametrize("state", ["cold", "warm"])
def test_only_the_pages_of_wanted_bytes_are_read(tmp_path: Path, state: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(0).randbytes(4 * BUFFER))
    spans = [(8, 100), (200, 3 * PAGE), (10 * PAGE + 1, 2 * PAGE), (BUFFER // 2 + 8, 2 * BUFFER), (4 * BUFFER - 9, 9)]
    expected = 4 * PAGE + 3 * PAGE + (2 * BUFFER + PAGE) + PAGE
    arguments = [f"{offset}:{length}" for offset, length in spans]
    command = [sys.executable, "-c", COUNT, str(source), str(tmp_path / "out"), state, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    read, fetched = map(int, process.stdout.split())  # by the kernel's own count, which knows nothing of ours
    assert expected <= read <= expected + COUNTING_ITSELF
    assert fetched <= CODE + (expected if state == "cold" else 0)
    data = source.read_bytes()
    assert (tmp_path / "out").read_bytes() == b"".join(data[offset : offset + length] for offset, length in spans)


def test_no_file_stays_open_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(10))
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError), Writer(tmp_path / "out") as writer:
        writer.copy([ByteRange(tmp_path / "source", 0, 20)])
    assert sorted(os.listdir("/proc/self/fd")) == before
