"""Compressed files → all of their rows, or an error: never a part, and never a bomb."""

import bz2
import gzip
import lzma
import os
import threading
import zlib

import pyarrow as pa
import pytest

from sqlflow_dagster.errors import SourceFailed

# Below and above the size from which text goes through a pipe; random, so that it stays that large.
SIZES = {"spooled": 20_000, "piped": 400_000}


def lines(count):
    return b"id,v\n" + b"".join(b"%d,%s\n" % (i, os.urandom(12).hex().encode()) for i in range(count))


def cut_at_a_line(text):
    """A gzip file that ends with a whole line, but before its end."""
    packer = zlib.compressobj(wbits=31)
    middle = text.index(b"\n", len(text) // 2) + 1
    return packer.compress(text[:middle]) + packer.flush(zlib.Z_FULL_FLUSH)


def zstd(text):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    return sink.getvalue().to_pybytes()


def xz(text):
    return lzma.compress(text, preset=0)


def second_stream_broken(pack):
    """Two streams, as programs with many threads write them; the second one begins with another letter."""

    def broken(text):
        middle = text.index(b"\n", len(text) // 2) + 1
        return pack(text[:middle]) + b"?" + pack(text[middle:])[1:]

    return broken


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd), ("bz2", bz2.compress), ("xz", xz)]
)
def test_every_row_is_read(folder, size, suffix, pack):
    text = lines(size)
    folder.write(f"a.csv.{suffix}", pack(text) + pack(text.partition(b"\n")[2]))
    rows = folder.rows("CSV", path=f"a.csv.{suffix}")
    assert len(rows) == 2 * size
    assert b"\n".join(b"%d,%s" % (i, v.encode()) for i, v in rows[:size]) == text[5:].rstrip()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("suffix", "broken"),
    [
        ("gz", cut_at_a_line),
        # A block of a type that there is none of.
        ("gz", lambda text: cut_at_a_line(text) + b"\x07" + bytes(5_000_000)),
        ("gz", lambda text: gzip.compress(text)[:-8]),
        ("gz", lambda text: gzip.compress(text)[:-8] + b"\1\2\3\4" + gzip.compress(text)[-4:]),
        ("gz", lambda text: gzip.compress(text) + b"not gzip"),
        ("zst", lambda text: zstd(text)[:-4]),
        ("zst", lambda text: zstd(text)[: len(zstd(text)) // 2]),
        ("zst", lambda text: zstd(text) + b"not zstd"),
        ("bz2", second_stream_broken(bz2.compress)),
        ("bz2", lambda text: bz2.compress(text, 1) + b"not bz2"),
        ("xz", second_stream_broken(xz)),
        ("xz", lambda text: xz(text)[:-1]),
    ],
    ids=[
        "cut at a line",
        "no deflate",
        "no end",
        "wrong checksum",
        "more after it",
        "zstd cut",
        "zstd half",
        "zstd more",
        "bz2 second",
        "bz2 more",
        "xz second",
        "xz cut",
    ],
)
@pytest.mark.parametrize("kind", ["CSV", "JSONL"])
def test_a_broken_file_is_an_error_and_not_a_part_of_its_rows(folder, size, suffix, broken, kind):
    if kind == "JSONL":
        text = b"".join(b'{"id": %d, "v": "%s"}\n' % (i, os.urandom(12).hex().encode()) for i in range(size))
    else:
        text = lines(size)
    name = f"a.{kind.lower()}.{suffix}"
    folder.write(name, broken(text))
    with pytest.raises(SourceFailed, match=rf"{name}: it is no whole (gzip|zstd|bz2|xz) file"):
        folder.read(kind, path=name)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_bomb_behind_ordinary_rows_is_refused(folder, size, suffix, pack):
    folder.write(f"a.csv.{suffix}", pack(lines(size)) + pack(b"0,0\n" * 10_000_000))
    with pytest.raises(SourceFailed, match="become more than .*max_uncompressed_bytes"):
        folder.read("CSV", path=f"a.csv.{suffix}", max_uncompressed_bytes=30_000_000)


def test_a_broken_line_of_a_piped_file_is_named(folder):
    text = lines(400_000)
    folder.write("a.csv.gz", gzip.compress(text + b"1,2,3\n" + text[5:]))
    with pytest.raises(SourceFailed, match=r"^a.csv.gz:400002: Expected Number of Columns: 2"):
        folder.read("CSV", path="a.csv.gz")
    folder.write("a.csv.gz", gzip.compress(text + b"1e,2\n" + text[5:]))
    with pytest.raises(SourceFailed, match=r"^a.csv.gz:400002: the value '1e' of column \"id\" is no"):
        folder.read("CSV", path="a.csv.gz", types={"id": "BIGINT"})


def test_many_piped_files_are_read_and_no_thread_or_spool_is_left(folder):
    packed = gzip.compress(lines(350_000), 1)
    for number in range(5):
        folder.write(f"in/{number}.csv.gz", packed)
    assert len(folder.rows("CSV", path="in", row_provenance=True)) == 5 * 350_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipe")]
    assert list((folder.root / ".sqlflow/spool").iterdir()) == []


def test_a_piped_file_that_nobody_reads_holds_nothing_up(folder):
    folder.write("a.csv.gz", gzip.compress(lines(400_000)))
    with folder.open("CSV", path="a.csv.gz") as source:
        batches = source.read(source.streams()[0], None)
        next(batches)
        batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipe")]


def test_other_encodings_of_large_files_go_through_a_pipe(folder):
    text = "id,v\n" + "".join(f"{i},Ärger{i}\n" for i in range(500_000))
    folder.write("a.csv", text.encode("latin-1"))
    rows = folder.rows("CSV", path="a.csv", encoding="latin-1")
    assert (len(rows), rows[-1]) == (500_000, (499_999, "Ärger499999"))
    folder.write("a.csv", text.encode("cp1252") + b"1,\x81\n")
    with pytest.raises(SourceFailed, match=r"^a.csv:500002: a byte is not cp1252"):
        folder.read("CSV", path="a.csv", encoding="cp1252")
