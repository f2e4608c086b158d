"""Compressed files → all of their rows, or an error: never a part, and never a bomb."""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile
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


def zipped(text, *more):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/rows", text)
        archive.writestr("__MACOSX/folder/._rows", b"")
        for number, other in enumerate(more):
            archive.writestr(f"folder/{number}", other)
    return packed.getvalue()


def wrong_checksum(text):
    """The archive of another text, of the same length."""
    mended = zipped(text)
    crc = zlib.crc32(text).to_bytes(4, "little")
    return mended.replace(crc, b"\1\2\3\4")


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
        ("zip", lambda text: zipped(text)[:-1000]),
        ("zip", wrong_checksum),
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
        "zip cut",
        "zip checksum",
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
    with pytest.raises(SourceFailed, match=rf"{name}: it is no whole (gzip|zstd|bz2|xz|zip) file"):
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


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_one_file_of_an_archive_is_read(folder, size):
    folder.write("in/a.csv.zip", zipped(lines(size)))
    assert len(folder.rows("CSV", path="in")) == size


def test_an_archive_of_several_files_or_with_a_password_is_refused(folder):
    folder.write("a.csv.zip", zipped(lines(2), lines(3)))
    with pytest.raises(
        SourceFailed, match=r"a.csv.zip: the archive holds 2 files; have each of them sent alone"
    ):
        folder.read("CSV", path="a.csv.zip")
    locked = bytearray(zipped(lines(2)))
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = -1
        while (at := locked.find(mark, at + 1)) >= 0:
            locked[at + place] |= 1
    folder.write("a.csv.zip", bytes(locked))
    with pytest.raises(SourceFailed, match="the archive is encrypted"):
        folder.read("CSV", path="a.csv.zip")


@pytest.mark.parametrize(
    ("pack", "kind"), [(gzip.compress, "gzip"), (zstd, "zstd"), (zipped, "zip"), (xz, "xz")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_packed_file_that_does_not_say_so_is_no_text(folder, pack, kind, encoding):
    folder.write("a.csv", pack(lines(10)))
    with pytest.raises(SourceFailed, match=f"it begins as a {kind} file does; set `compression` to '{kind}'"):
        folder.read("CSV", path="a.csv", encoding=encoding)
    assert len(folder.rows("CSV", path="a.csv", compression=kind)) == 10
