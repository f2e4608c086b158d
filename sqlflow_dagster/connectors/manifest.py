"""Which files a stream has read: the cursor of a file source that has no cursor column.

A file is known by name, size and times; its content's hash decides where those are not enough: it
was touched, renamed, copied to another machine, or written within the clock's grain. One is renamed where
another of its content and its time of change is gone; an object of a bucket never is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from sqlflow_dagster.connectors.listing import Partition
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.spool import opened
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import SourceFailed

if TYPE_CHECKING:
    from io import BufferedReader

# Up to this size a content's hash is always taken: it costs a thousandth of a second a megabyte.
_HASHED = 64 * 2**20
# A file written this short before it was read may be written again with the same times.
_GRAIN_NS = 2 * 10**9
_PACKED = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was read.

    `unsure` says that its times were too fresh to tell a later write. `loaded_as` is the name that
    its stored rows have, where it was renamed since.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    hash: str | None
    unsure: bool = False
    loaded_as: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be read: `new` and `changed` files; `gone` are names of files that are no more.

    `known` is what is remembered of all other files, by name.
    """

    new: tuple[File, ...] = ()
    changed: tuple[File, ...] = ()
    gone: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    # Names under which the rows of changed files are stored.
    replaces: tuple[str, ...] = ()
    known: Mapping[str, Seen] = field(default_factory=dict)
    # How many new and changed files were left for later.
    left: int = 0

    @property
    def to_read(self) -> tuple[File, ...]:
        """The new and the changed files, by name."""
        return tuple(sorted((*self.new, *self.changed), key=lambda file: file.name))

    def seen(self, now_ns: int) -> dict[str, Seen]:
        """Return what the next cursor is to hold, by name.

        To be asked for before the files are read, and only then: most of them are looked through.
        """
        return {**self.known, **{file.name: _as_read(file, now_ns) for file in self.to_read}}


def compare(
    since: Cursor | None,
    files: Iterable[File],
    now_ns: int,
    take: Callable[[Sequence[File]], Sequence[File]] = tuple,
    forget: Callable[[str], bool] = lambda _name: False,
    left_out: Callable[[str], bool] = lambda _name: False,
) -> Changes:
    """Return what has changed since the cursor.

    `take` picks which of the new and the changed files are read now; the others are so the next time.
    `forget` says of a file that is not among them, by its name, that nobody will look for it again, and
    `left_out` that it may well be there.
    """
    before = _read(since)
    seen: dict[str, Seen] = {}
    new: list[File] = []
    changed: list[File] = []
    for file in files:
        known = before.get(file.name)
        if known is None or (file.size and not known.size):
            new.append(file)
        elif same := _unchanged(known, file, now_ns):
            seen[file.name] = same
        else:
            changed.append(file)
    names = {*seen, *(file.name for file in (*new, *changed))}
    gone = {name: known for name, known in before.items() if name not in names and not forget(name)}
    unread = {name: gone.pop(name) for name in [*filter(left_out, gone)]}
    renamed = _renamed(new, gone)
    for file, old in renamed:
        known = gone.pop(old)
        seen[file.name] = replace(_as_read(file, now_ns, known.hash), loaded_as=known.loaded_as or old)
        new.remove(file)
    taken = {file.name for file in take((*new, *changed))}
    late = [file.name for file in (*new, *changed) if file.name not in taken]
    new, changed = ([file for file in some if file.name in taken] for some in (new, changed))
    kept = {name: before[name] for name in late if name in before}
    return Changes(
        new=tuple(new),
        changed=tuple(changed),
        gone=tuple(gone),
        renamed=tuple((old, file.name) for file, old in renamed),
        replaces=tuple(before[file.name].loaded_as or file.name for file in changed),
        # Gone files stay known: their rows stay loaded, and one that comes back is not loaded twice.
        known={**gone, **unread, **seen, **kept},
        left=len(late),
    )


def cursor(seen: Mapping[str, Seen], floor: Partition = ()) -> Cursor:
    """Return the cursor that remembers these files; many are packed.

    `floor` is the partition from which on the next read looks for files, where it does so by partition.
    """
    beside = {"floor": floor} if floor else {}
    files = {
        name: [item.size, item.mtime_ns, item.ctime_ns, item.hash, int(item.unsure), item.loaded_as]
        for name, item in sorted(seen.items())
    }
    text = json.dumps({"version": 1, "files": files, **beside}, separators=(",", ":"))
    if len(text) > _PACKED:
        packed = base64.b85encode(zlib.compress(text.encode(), 6)).decode()
        text = json.dumps(
            {"version": 1, "count": len(files), "packed": packed, **beside}, separators=(",", ":")
        )
    return Cursor(text, "JSON")


def floor(since: Cursor | None) -> Partition:
    """Return the partition from which on files are looked for; none where all are."""
    if since is None or since.type != "JSON":
        return ()
    try:
        return tuple((key, value) for key, value in json.loads(since.value).get("floor", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(error) from error


def _read(since: Cursor | None) -> dict[str, Seen]:
    if since is None:
        return {}
    try:
        document = json.loads(since.value)
        if "packed" in document:
            document = json.loads(zlib.decompress(base64.b85decode(document["packed"])))
        entries = document["files"].items()
        return {
            name: Seen(size, mtime, ctime, hash_, bool(unsure), loaded_as)
            for name, (size, mtime, ctime, hash_, unsure, loaded_as) in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> SourceFailed:
    return SourceFailed(
        f"the cursor is no list of files ({error}); it was made with a cursor_field, by another release "
        "or by hand: reset this LOAD to read all files again"
    )


def _unchanged(known: Seen, file: File, now_ns: int) -> Seen | None:
    """The entry to keep where the content is the one that was read, else None."""
    if known.size != file.size:
        return None
    if file.tag is not None:
        return (
            replace(known, mtime_ns=file.mtime_ns, ctime_ns=file.ctime_ns) if file.tag == known.hash else None
        )
    same_times = (known.mtime_ns, known.ctime_ns) == (file.mtime_ns, file.ctime_ns)
    if same_times and not known.unsure:
        return known
    if known.hash is None:
        # Too large to have been hashed: a copy with the same time of change is the same file.
        return known if known.mtime_ns == file.mtime_ns else None
    if digest(file) != known.hash:
        return None
    return replace(_as_read(file, now_ns, known.hash), loaded_as=known.loaded_as)


def _as_read(file: File, now_ns: int, known: str | None = None) -> Seen:
    fresh = now_ns - max(file.mtime_ns, file.ctime_ns) < _GRAIN_NS
    if file.tag is not None:
        return Seen(file.size, file.mtime_ns, file.ctime_ns, file.tag)
    hashed = known or (digest(file) if fresh or file.size <= _HASHED else None)
    return Seen(file.size, file.mtime_ns, file.ctime_ns, hashed, unsure=fresh)


def _renamed(new: Iterable[File], gone: Mapping[str, Seen]) -> list[tuple[File, str]]:
    """New files that are files which are no more, under another name."""
    left = dict(gone)
    found = []
    for file in new:
        for old, known in left.items():
            if known.size == file.size and _same_content(known, file):
                found.append((file, old))
                del left[old]
                break
    return found


def _same_content(known: Seen, file: File) -> bool:
    """Whether the file is the known one under another name: a rename keeps its time, and a store has none.

    Rows of a new file that only has the same content are new, as is the file of a day like the one before.
    """
    if file.tag is not None or known.mtime_ns != file.mtime_ns:
        return False
    return known.hash is None or not file.size or digest(file) == known.hash


def digest(file: File) -> str:
    """Return a hash of the file's content, 16 hexadecimal digits. Raises SourceFailed where it cannot be read."""
    with opened(file, "none") as stream:
        return hashlib.file_digest(
            cast("BufferedReader", stream), lambda: hashlib.blake2b(digest_size=8)
        ).hexdigest()
