"""What all file formats share: finding files, remembering them, unpacking them, reading them once.

A format adds how its files become a SELECT. With a `cursor_field` the rows at or after the cursor
are read from all files; without one, incremental reading takes the new and the changed files.
"""

from __future__ import annotations

import logging
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar
from urllib.parse import quote as quote_url

from sqlflow_dagster.connectors import budget, casts, listing, manifest, paths, spool, streamed
from sqlflow_dagster.connectors.base import (
    Ask,
    Connector,
    Estimate,
    Family,
    Health,
    Rejects,
    Scan,
    Stream,
    Unmoved,
)
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.parallel import beside, together
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.streamed import Pipe
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

log = logging.getLogger(__name__)

# Smaller ones are unpacked into the spool sooner than a pipe is made.
_LEAST_PIPED = 4 * 2**20
_UNPACKERS = 4
# The column that carries the path while DuckDB reads.
PATH = "_sqlflow_path"
PROVENANCE = "_sqlflow_file"
O = TypeVar("O", bound=FileOptions)  # noqa: E741 - the type parameter's usual name


@dataclass(frozen=True, slots=True)
class Readable:
    """A file and where DuckDB finds its bytes: `base` characters of that path precede its name."""

    file: File
    path: Path
    base: int
    lead: str
    pipe: Pipe | None = None

    @property
    def pattern(self) -> Sql:
        """The path as a literal in which DuckDB sees no wildcard."""
        text = "".join(f"[{c}]" if c in "*?[" else c for c in str(self.path))
        return literal(text)

    @property
    def place(self) -> tuple[int, str]:
        """What files must share to be read by one call."""
        return self.base, self.lead

    @property
    def name_sql(self) -> Sql:
        """The file's name, from the path that DuckDB read."""
        text = sql("substr({path}, {start})", path=quote(PATH), start=literal(self.base + 1))
        return sql("concat({lead}, {text})", lead=literal(self.lead), text=text) if self.lead else text

    def lines(self) -> Iterator[bytes]:
        """Yield the lines from the start; a pipe is left to DuckDB, which may not have let go of it yet."""
        if self.pipe is None:
            with self.path.open("rb") as stream:
                yield from stream
            return
        rest = b""
        for piece in self.pipe.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in whole)
        if rest:
            yield rest


@dataclass(frozen=True, slots=True)
class Selected:
    """A SELECT over files, the extensions it needs, and who explains its failures.

    `checks` go through the files while their rows are read, and raise what is wrong. `in_pieces` says that
    each file is read in many small pieces.
    """

    query: Sql | Callable[[Ask], Sql]
    extensions: tuple[str, ...] = ()
    explain: Callable[[str], str] | None = None
    rejects: Rejects | None = None
    checks: tuple[Iterator[object], ...] = ()
    in_pieces: bool = False


class Files(Connector[O]):
    """A source of files of one format."""

    family: ClassVar[Family] = "file"
    suffixes: ClassVar[tuple[str, ...]]
    # Whether the text may come through a pipe: DuckDB reads it once, from its beginning to its end.
    reads_once: ClassVar[bool] = False
    # Whether every file is copied into the spool, where more may be written beside it.
    copies: ClassVar[bool] = False
    # Whether columns that are not wanted need not be there: see `ranges`.
    by_column: ClassVar[bool] = False
    # Whether DuckDB takes no byte-order mark in this format.
    has_no_mark: ClassVar[bool] = False

    @abstractmethod
    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        """Return the SELECT of all rows; with `row_provenance` it ends with `_sqlflow_file`.

        `kept` are the types that columns, by their folded names, have in the table: values stay text or JSON there,
        whatever they look like; for declared columns it is empty. None where the files hold nothing, not even names of
        columns.
        """

    def ranges(self, path: Path, needs: Sequence[str]) -> list[tuple[int, int]] | None:
        """Return the ranges of bytes that `select` reads for the columns that are wanted; None for all bytes.

        `path` is a file of the whole size, of which the last bytes are there. `needs` are a stream's.
        """
        del path, needs
        return None

    def streams(self) -> Sequence[Stream]:
        options = self.options
        return (
            Stream(
                options.stream,
                primary_key=options.primary_key,
                cursor_field=options.cursor_field,
                own_cursor=options.counts_files,
                description=f"Rows of {', '.join(options.path)}.",
            ),
        )

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan | Unmoved]:
        if not self.options.counts_files:
            files = self._all(since)
            self._required(files, since)
            budget.check(self.limits, self.cost(files))
            yield from self._scans(stream, files)
            return
        changes = self._changes(since)
        if since is None and not changes.left:
            self._required(changes.to_read, since)
        self._noticed(changes)
        self._replaceable(changes, stream)
        seen = changes.seen(time.time_ns())
        floor: listing.Partition = ()
        if self.options.incremental_by == "partition":
            floor = listing.reached(seen, manifest.floor(since), self.options.partition_lookback)
        replaces = changes.replaces if self.options.row_provenance else ()
        # Of rows of one key the last one stays: that of the newest file, as if each had been read when it came.
        came = changes.to_read if since is None else budget.in_order(changes.to_read)
        reached = manifest.cursor(seen, floor)
        if came:
            yield from self._scans(stream, came, replaces, reached)
        elif since is not None and reached != since:
            # A file that was renamed has its new name from now on; one that was looked through needs it no more.
            yield Unmoved(reached)

    def new_files(self, since: Cursor | None) -> tuple[str, ...]:
        changes = self._changes(since, limited=False)
        return tuple(f"{file.name} {file.size} {file.mtime_ns}" for file in changes.to_read)

    def estimate(self, since: Cursor | None) -> Estimate | None:
        if self.options.counts_files:
            return self.cost(self._changes(since, limited=False).to_read)
        return self.cost(self._all(since))

    def check(self) -> Health:
        try:
            files = self._listed(self._wanted(None))
        except NotAllowed as error:
            return Health(ok=False, message=str(error))
        if self.options.require_files and (self._absent() or not files):
            return Health(ok=False, message=str(self._missing()))
        size = sum(file.size for file in files)
        facts = {"files": len(files), "bytes": size}
        return Health(ok=True, message=f"{len(files)} files, {size:,} bytes", facts=facts)

    @property
    def limits(self) -> budget.Limits:
        """The most that one read may take."""
        return budget.Limits(self.options.max_files_per_run, self.options.max_data_size_gb)

    def cost(self, files: Sequence[File]) -> Estimate:
        """Return what reading these files takes."""
        return Estimate(len(files), sum(file.size for file in files))

    def _all(self, since: Cursor | None) -> list[File]:
        """All files that are wanted, where a column is the cursor."""
        if since is not None and since.type == "JSON":
            raise SourceFailed(
                "the cursor is a list of files, and `cursor_field` now names a column; reset this LOAD"
            )
        wanted = self._wanted(None)
        return self._chosen(self._listed(wanted), wanted)

    def _changes(self, since: Cursor | None, *, limited: bool = True) -> manifest.Changes:
        """What is new since the cursor. Raises SourceFailed where it is more than may be read."""
        by_partition = self.options.incremental_by == "partition"
        if manifest.floor(since) and not by_partition:
            raise SourceFailed(
                'the cursor knows the newest partitions only, and `incremental_by` is "file" now; reset this LOAD'
            )
        wanted = self._wanted(since) if by_partition else self._wanted(None)
        listed = self._listed(wanted)
        names = {file.name for file in listed}
        return manifest.compare(
            since,
            self._chosen(listed, wanted),
            time.time_ns(),
            self._within if limited else tuple,
            forget=lambda name: by_partition and not wanted.reaches(name),
            left_out=lambda name: name in names or not wanted.admits(name.split("/")[:-1]),
        )

    def _within(self, files: Sequence[File]) -> Sequence[File]:
        """As many of the files as one run may read."""
        if self.options.when_over_limit == "error":
            budget.check(self.limits, self.cost(files))
            return files
        ordered = budget.in_order(files)
        few, many = 0, len(ordered)
        while few < many:
            middle = (few + many + 1) // 2
            fits = self.limits.exceeded(self.cost(ordered[:middle])) is None
            few, many = (middle, many) if fits else (few, middle - 1)
        if ordered and not few:
            advice = f"raise the limit, or leave out {ordered[0].name}, which alone is more"
            budget.check(self.limits, self.cost(ordered[:1]), advice)
        return ordered[:few]

    def _wanted(self, since: Cursor | None) -> listing.Wanted:
        return listing.Wanted(self.options.partition_filter, manifest.floor(since))

    def _chosen(self, listed: Sequence[File], wanted: listing.Wanted) -> list[File]:
        """The files of the partitions that are wanted, which nobody has written for `min_age_seconds`."""
        options = self.options
        listing.refuse_unknown(options.partition_filter, listed)
        files = self._settled([file for file in listed if wanted.takes(file)])
        chosen = listing.sampled(files, options.dev_sampling, options.dev_max_files)
        if len(chosen) < len(files):
            log.warning("for development, %d of %d files are read", len(chosen), len(files))
        return chosen

    def _listed(self, wanted: listing.Wanted) -> list[File]:
        """All files that the options name; folders without a wanted partition may be left out."""
        return paths.find(self.place, self.options.path, self.suffixes, self.options.pattern, wanted.admits)

    def _settled(self, files: Sequence[File]) -> list[File]:
        newest = time.time_ns() - int(self.options.min_age_seconds * 1e9)
        return [file for file in files if not self.options.min_age_seconds or file.mtime_ns <= newest]

    def _absent(self) -> Sequence[str]:
        """The paths that name one file or folder, which is not there: without it, a table would lose its rows."""
        return paths.absent(self.place, self.options.path)

    def _missing(self) -> SourceFailed:
        return paths.missing(self.place, self._absent() or self.options.path, self.options.pattern)

    def _required(self, files: Sequence[File], since: Cursor | None) -> None:
        if not self.options.require_files:
            return
        # What has been read may go.
        if (since is None and self._absent()) or (not files and not self._listed(listing.Wanted())):
            raise self._missing()

    def _noticed(self, changes: manifest.Changes) -> None:
        if changes.gone:
            log.warning("files are no more, their rows stay: %s", ", ".join(changes.gone[:10]))
        for old, new in changes.renamed:
            log.warning("%s is %s, which was loaded already; it is not loaded again", new, old)
        if changes.left:
            log.warning("%d files are left to the next run: this one has reached a limit", changes.left)

    def _replaceable(self, changes: manifest.Changes, stream: Stream) -> None:
        keyed = stream.primary_key or self.options.primary_key
        if not changes.changed or keyed or self.options.row_provenance:
            return
        names = ", ".join(file.name for file in changes.changed[:10])
        raise SourceFailed(
            f"changed since they were loaded: {names}. Their stored rows cannot be told from others: set "
            "`row_provenance` to true (and reset this LOAD once), so that a file's rows are replaced; or name "
            "a `primary_key`, so that they are merged; or send changes in files of new names"
        )

    def _scans(
        self,
        stream: Stream,
        files: Sequence[File],
        replaces: tuple[str, ...] = (),
        position: Cursor | None = None,
    ) -> Iterator[Scan]:
        with self._opened(stream, [file for file in files if file.size]) as readable:
            selected = self.select(readable, self._kept(stream)) if readable else None
            if selected is None and (files or not self.options.counts_files or replaces):
                selected = self._nothing()
            if selected is None:
                self._not_empty(files)
                return
            with beside(selected.checks, "checks"):
                yield Scan(
                    selected.query,
                    extensions=selected.extensions,
                    rejects=selected.rejects,
                    provenance=self.options.row_provenance,
                    replaces=replaces,
                    position=position,
                    scattered=paths.scattered(files, in_pieces=selected.in_pieces),
                    explain=_first_of(readable, selected.explain),
                )
            for item in readable:
                if item.pipe and item.pipe.error:
                    raise item.pipe.error
            for file in files:
                if file.changed():
                    raise RetryLater(
                        f"{file.name} was written to while it was read; set `min_age_seconds` where files "
                        "take long to arrive",
                        after=5,
                    )

    def _kept(self, stream: Stream) -> dict[str, str]:
        """The types in the table, empty for columns that are declared; of those to be hashed it is one text's hash."""
        kept = {fold(name): kind for name, kind in stream.stored.items()}
        kept |= {fold(name): "VARCHAR" for name, how in self.options.mask.items() if how == "hash"}
        declared = {fold(name) for name in self.options.types}
        return {name: "" if name in declared else kind for name, kind in kept.items()}

    def _not_empty(self, files: Sequence[File]) -> None:
        """Refuse files of which none holds anything: taking them for no rows could empty a table."""
        if files and not self.options.counts_files:
            names = ", ".join(file.name for file in files[:10])
            raise SourceFailed(
                f"{names}: empty, without even the names of columns; mend the file, or declare `types` where an "
                "empty file means that there are no rows"
            )

    def _nothing(self) -> Selected | None:
        """No rows of the declared columns; None where none are declared."""
        columns = dict(self.options.types)
        if not columns:
            return None
        if self.options.row_provenance:
            columns[PROVENANCE] = "VARCHAR"
        nulls = (
            sql("CAST(NULL AS {kind}) AS {name}", kind=Sql(kind), name=quote(name))
            for name, kind in columns.items()
        )
        return Selected(sql("SELECT {columns} WHERE false", columns=join(", ", nulls)))

    def _opened(self, stream: Stream, files: Sequence[File]) -> AbstractContextManager[list[Readable]]:
        """Make the files' bytes readable for the time of the block."""
        del stream
        return self.unpacked(files)

    @contextmanager
    def unpacked(self, files: Sequence[File]) -> Iterator[list[Readable]]:
        """Make local files' bytes readable, unpacked and as UTF-8, for the time of the block."""
        with room(self.place.spool, "files") as folder, ExitStack() as open_:
            tasks = [partial(self._readable, file, folder, open_) for file in files]
            packed = any(spool.compression(file, self.options.compression) != "none" for file in files)
            yield together(tasks, _UNPACKERS, "sqlflow_unpack") if packed else [task() for task in tasks]

    def _is_misread(self, file: File) -> bool:
        """Whether DuckDB would misread the file's text for its byte-order mark."""
        return self.has_no_mark and spool.has_mark(file)

    def _readable(self, file: File, folder: Path, open_: ExitStack) -> Readable:
        options = self.options
        kind = spool.compression(file, options.compression)
        encoding = getattr(options, "encoding", "utf-8")
        as_it_is = kind == "none" and encoding == "utf-8" and not self.copies
        if as_it_is and not self._is_misread(file):
            return Readable(file, file.path, len(str(file.path)) - len(file.tail), file.lead)
        caps = spool.Caps(options.max_uncompressed_bytes, options.max_compression_ratio)
        path = spool.unpacked(file, folder)
        base = len(str(path)) - len(file.tail)
        if self.reads_once and file.size > _LEAST_PIPED and streamed.AVAILABLE:
            pipe = Pipe(path, lambda: spool.recoded(file, spool.pieces(file, kind, caps), encoding))
            open_.callback(pipe.close)
            return Readable(file, path, base, file.lead, pipe)
        return Readable(file, spool.spooled(file, folder, kind, encoding, caps), base, file.lead)


def _first_of(files: Sequence[Readable], explain: Callable[[str], str] | None) -> Callable[[str], str] | None:
    """Explain a failure by what broke a file's pipe, where that came before what DuckDB makes of it."""

    def explained(message: str) -> str:
        broken = next((item.pipe.error for item in files if item.pipe and item.pipe.error), None)
        if broken:
            return str(broken)
        return explain(message) if explain else message

    return explained if any(item.pipe for item in files) else explain


def partition_types(
    files: Sequence[File], enabled: bool | None, declared: Mapping[str, str]
) -> dict[str, str]:
    """Return the columns that `key=value` folders make, with the types that keep their texts."""
    if enabled is False:
        return {}
    from sqlflow_dagster.connectors.guess import type_of  # noqa: PLC0415 - only where folders may be columns

    values: dict[str, set[str]] = {}
    for file in files:
        for key, value in file.partitions.items():
            values.setdefault(key, set()).update({value} if value is not None else ())
    known = {fold(name): kind for name, kind in declared.items()}
    return {key: known.get(fold(key)) or type_of(texts) for key, texts in values.items()}


def partition_sql(name: Sql, key: str, kind: str, *, guessed: bool) -> Sql:
    """Return the value that a `key=value` folder gives; `name` is the file's name."""
    pattern = f"^(?:.*/)?{_spelt(key)}=([^/]*)/"
    text = sql("regexp_extract({name}, {pattern}, 1)", name=name, pattern=literal(pattern))
    value = sql(
        "CASE WHEN regexp_matches({name}, {pattern}) AND {text} <> {none} THEN url_decode({text}) END",
        name=name,
        pattern=literal(pattern),
        text=text,
        none=literal(paths.DEFAULT_PARTITION),
    )
    return casts.converted(key, kind, guessed=guessed, where=name, text=value)


def _spelt(key: str) -> str:
    """The pattern of a folder's key as it stands, or percent-encoded, as exports write what is no letter or digit."""
    return "".join(
        character
        if character.isascii() and character.isalnum()
        else f"(?:{re.escape(character)}|(?i:{quote_url(character, safe='')}))"
        for character in key
    )


def options_sql(given: Mapping[str, Sql | None]) -> Sql:
    """Return `name = value` pairs of a table function, those that are None left out."""
    return join(", ", (Sql(f"{name} = {value}") for name, value in given.items() if value is not None))


def struct_sql(columns: Mapping[str, str]) -> Sql:
    """Return a struct of names and type names, as `columns` and `hive_types` take it."""
    pairs = (sql("{name}: {kind}", name=quote(name), kind=literal(kind)) for name, kind in columns.items())
    return sql("{{{pairs}}}", pairs=join(", ", pairs))


def whole_sql(read: Sql, files: Sequence[Readable], folders: Mapping[str, str], *, provenance: bool) -> Sql:
    """Return the SELECT of what the table expression `read` gives, its path made the file's name.

    Columns of `key=value` folders above the source's own are left out: DuckDB sees the whole path.
    """
    above = {
        part.partition("=")[0]
        for item in files
        for part in str(item.path)[: item.base].split("/")
        if "=" in part and folders
    }
    out = join(", ", map(quote, [PATH, *sorted(above - set(folders))]))
    name = sql(", {name} AS {column}", name=files[0].name_sql, column=quote(PROVENANCE))
    return sql(
        "SELECT * EXCLUDE ({out}){name} FROM {read}", out=out, name=name if provenance else Sql(""), read=read
    )


def by_place(files: Sequence[Readable]) -> list[list[Readable]]:
    """Return the files in groups that one call can read."""
    groups: dict[tuple[int, str], list[Readable]] = {}
    for item in files:
        groups.setdefault(item.place, []).append(item)
    return list(groups.values())


def named(files: Sequence[Readable]) -> Callable[[str], str]:
    """Return what puts the files' own names into DuckDB's messages, and its advice out of them."""

    def explain(message: str) -> str:
        for item in files:
            message = message.replace(str(item.path), item.file.name)
        kept = message.partition("\n")[0] if "Try setting" in message or "\nLINE " in message else message
        return kept.strip()

    return explain
