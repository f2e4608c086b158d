"""A path, glob, directory or list of them → the files it names, none outside the allowed folders."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlflow_dagster.connectors import globs
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.errors import BadOption, NotAllowed, SourceFailed

_MAGIC = re.compile(r"[*?\[]")
# By suffix, the name of the compression.
COMPRESSIONS = {
    ".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz", ".lzma": "xz",
    ".lz4": "lz4", ".br": "brotli", ".snappy": "snappy", ".sz": "snappy", ".zip": "zip",
}  # fmt: skip
DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"
# So many files, of so many bytes together, and of no more than that each, are many small ones.
_MANY = 32
_MUCH = 8 * 2**20
# Of so many bytes of text it takes a fifth of the time to put the pieces in order in which threads read them.
_LARGE = 64 * 2**20
# What a project is written in.
_CODE = (".sf", ".py", ".toml", ".yml", ".yaml")
# Whether a folder, by its parts from the top of a name on, may hold files that are wanted.
Admits = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was listed. `name` is its path below the project, or whole where it is outside.

    `lead` is what of the name is not the end of its path, such as `s3://bucket/`. `tag` is the
    store's own word for the content (an ETag), None for a local file.
    """

    path: Path
    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    lead: str = ""
    tag: str | None = None

    @property
    def tail(self) -> str:
        """The end of the path that is the end of the name too."""
        return self.name.removeprefix(self.lead)

    @property
    def partitions(self) -> dict[str, str | None]:
        """Values of `key=value` folders in the name, by key; both may be percent-encoded there."""
        found: dict[str, str | None] = {}
        for part in self.name.split("/")[:-1]:
            key, separator, value = part.partition("=")
            if separator and key:
                found[unquote(key)] = None if value == DEFAULT_PARTITION else unquote(value)
        return found

    def changed(self) -> bool:
        """Whether the file is no longer what was listed; one with a tag was read as the tag says."""
        if self.tag is not None:
            return False
        return _stat(self.path) != (self.size, self.mtime_ns, self.ctime_ns)


def inside(place: Place, target: str | Path) -> Path:
    """Return the real path of `target`, relative ones below the project's root.

    Links and `..` are followed first. Raises NotAllowed where it is in no allowed folder, and
    BadOption for a URL that is no local file.
    """
    text = _local(str(target))
    path = Path(place.root, Path(text).expanduser())
    real = Path(os.path.realpath(path))
    roots = [Path(os.path.realpath(root)) for root in (place.root, *place.allowed)]
    if not any(real.is_relative_to(root) for root in roots):
        raise NotAllowed(
            f"{target} is {real}, outside the project {roots[0]}; move it there, or add its folder to "
            "engines.duckdb.allowed_directories of the profile"
        )
    return real


def written(place: Place, target: str) -> Path:
    """Return the real path of what an EXPORT writes.

    Raises NotAllowed for the project's own files: its pipelines, profiles, functions, state, warehouse, code, and
    what is hidden beside them; and what `inside` raises.
    """
    path = inside(place, target)
    root = Path(os.path.realpath(place.root))
    own = [Path(os.path.realpath(item)) for item in place.own]
    if place.warehouse is not None:
        own += [place.warehouse.resolve(), Path(f"{place.warehouse.resolve()}.wal")]
    is_hidden = path.is_relative_to(root) and path.relative_to(root).as_posix().startswith(".")
    if (is_hidden and path != root) or path.suffix in _CODE or any(path.is_relative_to(item) for item in own):
        raise NotAllowed(
            f"{target} is {path}, one of the project's own files; name another target, such as output/"
        )
    return path


def find(
    place: Place,
    paths: Sequence[str],
    suffixes: Iterable[str],
    pattern: str | None = None,
    admits: Admits = lambda _folders: True,
) -> list[File]:
    """Return the files that `paths` name, each once, sorted by name.

    A directory means all files below it with one of `suffixes` (compressed or not), or those that
    match the glob `pattern`. Hidden files and those that begin with `_` are left out of directories,
    and the project's warehouse of all that a wildcard matches.
    Of a directory without a pattern, folders that `admits` refuses are not looked into.
    """
    wanted = tuple(suffixes)
    found: dict[Path, File] = {}
    for text in (item for path in paths for item in _meant(place, _local(path))):
        for path in _matches(place, text, wanted, pattern, admits):
            real = inside(place, path)
            if real not in found and (file := _listed(place, real)):
                found[real] = file
    return sorted(found.values(), key=lambda file: file.name)


def absent(place: Place, paths: Sequence[str]) -> list[str]:
    """Return the paths without a wildcard that name nothing."""
    return [
        text
        for text in paths
        if not _MAGIC.search(text)
        and len(globs.alternatives(text)) == 1
        and not Path(place.root, Path(_local(text)).expanduser()).exists()
    ]


def missing(place: Place, paths: Sequence[str], pattern: str | None = None) -> SourceFailed:
    """Return the error for paths that name no file: it says where was looked."""
    text = paths[0] if len(paths) == 1 else f"[{', '.join(paths)}]"
    folder = Path(place.root, _fixed_part(_local(paths[0])))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    has = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"
    also = f" with the pattern {pattern!r}" if pattern else ""
    return SourceFailed(
        f"no file matches {text!r}{also}; {folder} has {has}; mend `path`, or set `require_files` to false "
        "where there may be none"
    )


def _meant(place: Place, text: str) -> Sequence[str]:
    """The paths that one with `{a,b}` stands for; a file may be called so, too."""
    return (text,) if Path(place.root, Path(text).expanduser()).exists() else globs.alternatives(text)


def _matches(
    place: Place, text: str, suffixes: tuple[str, ...], pattern: str | None, admits: Admits
) -> Iterator[Path]:
    whole = Path(place.root, Path(text).expanduser())
    if whole.is_dir():
        yield from _below(place, inside(place, whole), suffixes, pattern, _from(place, admits))
    elif whole.exists() or not _MAGIC.search(text):
        inside(place, whole)
        if whole.exists():
            yield whole
    else:
        fixed = _fixed_part(text)
        if ".." in Path(text).parts[len(Path(fixed).parts) :]:
            raise BadOption(f"path: {text!r} has .. after a wildcard; write the folder out", option="path")
        inside(place, Path(place.root, fixed))
        for match in glob.iglob(str(whole), recursive=True):  # noqa: PTH207 - Path.glob takes no `..`
            path = Path(match)
            if path.is_dir():
                if not text.endswith("**"):
                    yield from _below(place, path, suffixes, pattern, _from(place, admits))
            elif _is_meant(place, path, text):
                yield path


def _is_meant(place: Place, path: Path, text: str) -> bool:
    """Whether a match is data: neither the warehouse, nor `_SUCCESS` and the like where any name would match."""
    if place.warehouse and _belongs_to(place.warehouse.resolve(), path.resolve()):
        return False
    return not hidden(path.name) or not Path(text).name.startswith("*")


def _belongs_to(database: Path, path: Path) -> bool:
    """Whether a file is a database, its log, its lock, or what DuckDB spills beside it."""
    names = (f"{database.name}{suffix}" for suffix in ("", ".wal", ".lock"))
    return (
        path in map(database.with_name, names) or database.with_name(f"{database.name}.tmp") in path.parents
    )


def hidden(name: str) -> bool:
    """Return whether a name in a folder is of no data: hidden, another program's mark, or Excel's of an open workbook.

    A partition's key may begin as such a name does.
    """
    return name.startswith((".", "_", "~$")) and "=" not in name


def _from(place: Place, admits: Admits) -> Callable[[Path], bool]:
    """`admits` for a whole path, of which it sees the folders that are in the names of files."""
    root = Path(os.path.realpath(place.root))

    def admitted(folder: Path) -> bool:
        return admits((folder.relative_to(root) if folder.is_relative_to(root) else folder).parts)

    return admitted


def _below(
    place: Place,
    folder: Path,
    suffixes: tuple[str, ...],
    pattern: str | None,
    admitted: Callable[[Path], bool],
) -> Iterator[Path]:
    if pattern:
        for item in globs.alternatives(pattern):
            yield from (path for path in folder.glob(item) if path.is_file() and _is_meant(place, path, item))
        return
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not hidden(name) and admitted(Path(base, name)))
        for name in sorted(names):
            if not hidden(name) and has_suffix(name, suffixes):
                yield Path(base, name)


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name ends with one of the suffixes, or with one and that of a compression."""
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return suffix in suffixes


def _listed(place: Place, real: Path) -> File | None:
    """The file as it is; None where it is none, or has gone since its folder was looked through."""
    status = _stat(real)
    if status is None:
        return None
    root = Path(os.path.realpath(place.root))
    name = real.relative_to(root).as_posix() if real.is_relative_to(root) else real.as_posix()
    return File(real, name, *status, lead="/" if name.startswith("/") else "")


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError as error:
        # What the folder names is not there: gone, or a link to itself.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else None


def scattered(files: Sequence[File], *, in_pieces: bool) -> bool:
    """Return whether files are many small pieces that make much together; `in_pieces` says that each is."""
    size = sum(file.size for file in files)
    return (len(files) >= _MANY and _MUCH <= size <= len(files) * _MUCH) or (in_pieces and size >= _LARGE)


def _local(text: str) -> str:
    """A path without `file://` and its escapes."""
    if "\0" in text:
        raise BadOption("path: it holds a NUL character", option="path")
    scheme, separator, _rest = text.partition("://")
    if not separator:
        return text
    if scheme.lower() != "file":
        remedy = (
            "write TYPE S3" if scheme.lower() in ("s3", "s3a", "s3n") else "fetch it to this machine first"
        )
        raise BadOption(f"path: {scheme}:// is no local file; {remedy}", option="path")
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise BadOption(
            f"path: {text!r} names the host {parts.netloc!r}; write file:///… for a file of this machine",
            option="path",
        )
    return unquote(parts.path)


def _fixed_part(text: str) -> str:
    """The folders before the first part with a wildcard."""
    kept = []
    for part in Path(text).parts:
        if _MAGIC.search(part):
            break
        kept.append(part)
    return str(Path(*kept))
