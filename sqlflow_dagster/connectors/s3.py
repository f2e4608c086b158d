"""S3 and compatible stores: objects of one format, read whole and in parallel; exports, there whole or not at all.

::

    SOURCE sales TYPE S3 PARAMS {
      "bucket": "lake", "path_prefix": "raw/sales/", "file_format": "csv", "types": {"amount": "DECIMAL(12,2)"},
      "endpoint_url": "${S3_ENDPOINT}", "access_key_id": "${S3_KEY}", "secret_access_key": "${S3_SECRET}",
      "sync_mode": "incremental", "primary_key": "id"
    };

The parameters of the format are those of its own TYPE. A read lists once, picks the objects (by partition,
by what is new), checks the limits, and only then fetches the first byte. An object that is replaced meanwhile
is noticed by its ETag, and the read is done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import budget, globs, listing, paths, registry, spool
from sqlflow_dagster.connectors.base import Estimate, Family, Health, Place, Rows, Stream, Written
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import Files, Readable, Selected
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.s3_fetch import Fetcher, Narrow, packed, requests
from sqlflow_dagster.connectors.s3_health import health
from sqlflow_dagster.connectors.s3_objects import Objects
from sqlflow_dagster.connectors.s3_options import Connecting, FormatOptions, S3Options, S3SinkOptions
from sqlflow_dagster.errors import BadOption, SourceFailed, SQLFlowError
from sqlflow_dagster.resilience.policy import DEFAULTS, Policy
from sqlflow_dagster.rooms import room

_FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "avro")
# What is decided here, and not by the format.
_LISTING = frozenset(
    {"path", "pattern", "sync_mode", "cursor_field", "incremental_by", "when_over_limit", "lookback_window"}
)
_SEVERAL = ("date_format", "timestamp_format")
# The parameters that are S3's own, whatever the format.
_OWN = (S3Options.model_fields.keys() - FormatOptions.model_fields.keys()) | Connecting.model_fields.keys()
# What S3 takes of a prefix in a second (docs.aws.amazon.com, "Optimizing Amazon S3 performance").
_A_SECOND = 3_500


class S3(Files[S3Options]):
    """A bucket."""

    options_type = S3Options
    sink_options_type = S3SinkOptions
    family: ClassVar[Family] = "object_store"
    policy: ClassVar[Policy] = replace(DEFAULTS["object_store"], rate=_A_SECOND * 60, burst=_A_SECOND)
    by_request = True
    suffixes = ()
    # The objects that were asked for by name and not there when last listed.
    _lacking: tuple[str, ...] = ()

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.options.at(self.place.root), lambda: self.guard)

    def streams(self) -> Sequence[Stream]:
        (stream,) = super().streams()
        where = ", ".join(map(str, self.options.places()))
        if self.options.file_format != "auto":
            # Parameters of another format are told when definitions load.
            self._format_named(self.options.file_format)
        cursor = None if self.options.counts_files else stream.cursor_field
        return (replace(stream, cursor_field=cursor, description=f"Rows of {where}."),)

    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        return self._format([item.file for item in files]).select(files, kept)

    @property
    def limits(self) -> budget.Limits:
        return super().limits._replace(usd=self.options.cost_limit_usd)

    def cost(self, files: Sequence[File]) -> Estimate:
        size, gets, lists = sum(file.size for file in files), requests(files), self._objects.lists
        usd = self._objects.prices.of(lists=lists, gets=gets, size=size)
        return Estimate(len(files), size, lists + gets, usd)

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        from sqlflow_dagster.connectors.s3_sink import write  # noqa: PLC0415 - reading needs none

        return write(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        from sqlflow_dagster.connectors import s3_sink  # noqa: PLC0415 - reading needs none

        s3_sink.check_words(target, options, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        from sqlflow_dagster.connectors import s3_target  # noqa: PLC0415 - reading needs none

        return s3_target.health(target, options, place)

    def check(self) -> Health:
        begin = time.perf_counter()
        try:
            return health(self._objects, self.options.places(), begin)
        except SQLFlowError as error:
            return Health(ok=False, message=str(error))

    def account(self) -> str:
        options = self.options
        return f"{options.endpoint_url or 'aws'} {options.places()[0].bucket}"

    def close(self) -> None:
        # Nothing is made only to be closed.
        if "_objects" in self.__dict__:
            self._objects.close()

    def _listed(self, wanted: listing.Wanted) -> list[File]:
        options = self.options
        found: dict[str, File] = {}
        named = options.named()
        lacking = []
        for where in options.places():
            files = list(self._objects.find(where, wanted))
            # Of a folder, what no partition wants may have been left out.
            if not files and where in named and (where.kind == "key" or not wanted.narrows):
                lacking.append(str(where))
            for file in files:
                if where.kind not in ("prefix", "either") or self._is_data(file, where.text):
                    found[file.name] = file
        self._lacking = tuple(lacking)
        begin, end = (_nanoseconds(text) for text in (options.modified_after, options.modified_before))
        return [
            file
            for _, file in sorted(found.items())
            if (begin is None or file.mtime_ns >= begin) and (end is None or file.mtime_ns < end)
        ]

    def _is_data(self, file: File, prefix: str) -> bool:
        """Whether an object below a prefix is meant: by `pattern`, else by how its name ends."""
        key = file.tail.partition("/")[2]
        if self.options.pattern:
            below = key[len(prefix.rpartition("/")[0]) :].lstrip("/")
            return any(globs.pattern(glob).fullmatch(below) for glob in self.options.pattern)
        if key == prefix:
            return True
        name = key.rpartition("/")[2]
        wanted = self.options.file_format
        if wanted == "auto":
            return _format_of(name) is not None
        return paths.has_suffix(name, _kind(wanted).suffixes) or "." not in name

    def _narrowed(self, form: Files[Any], stream: Stream) -> Narrow | None:
        """What says which bytes of an object are needed; None where all are."""
        options = self.options
        if not form.by_column or not (options.columns or options.exclude_columns):
            return None

        def ranges(path: Path, file: File) -> list[tuple[int, int]] | None:
            plain = spool.compression(file, options.compression) == "none"
            return form.ranges(path, stream.needs) if plain else None

        return ranges

    def _absent(self) -> Sequence[str]:
        return self._lacking

    def _missing(self) -> SourceFailed:
        places = self.options.places()
        if 0 < len(self._lacking) < len(places):
            return SourceFailed(
                f"there is no object {', '.join(self._lacking)}; mend `key` or `path`, or set `require_files` to false "
                "where there may be none"
            )
        where = ", ".join(map(str, places))
        wanted = self.options.file_format
        form = "data, by its ending: set `file_format`" if wanted == "auto" else wanted
        return SourceFailed(
            f"no object at {where} is {form}; mend `path_prefix`, `key` or `pattern`, or set `require_files` to false "
            "where there may be none"
        )

    def _format(self, files: Sequence[File]) -> Files[Any]:
        """The connector of the objects' format, with the parameters that are its own."""
        wanted = self.options.file_format
        if wanted == "auto":
            found = {_format_of(file.name): file.name for file in files}
            if None in found:
                raise BadOption(
                    f"file_format: the name of {found[None]} does not say it; set it", option="file_format"
                )
            if len(found) > 1:
                raise BadOption(
                    f"file_format: there are objects of several formats, such as {' and '.join(found.values())}; "
                    "set it, and a `pattern`",
                    option="file_format",
                )
            return self._format_named(*map(str, found))
        return self._format_named(wanted)

    def _format_named(self, name: str) -> Files[Any]:
        kind = _kind(name)
        told = _told(self.options, cast("type[FileOptions]", kind.options_type), name)
        return kind(parse(kind.options_type, told)[0], self.place)

    @contextmanager
    def _opened(self, stream: Stream, files: Sequence[File]) -> Iterator[list[Readable]]:
        if not files:
            yield []
            return
        form = self._format(files)
        with room(self.place.spool, "s3") as folder:
            fetched = Fetcher(self._objects).fetch(files, folder, self._narrowed(form, stream))
            if self.options.compression == "auto":
                fetched = [packed(file) for file in fetched]
            with form.unpacked(fetched) as readable:
                yield readable


def _told(options: S3Options, kind: type[FileOptions], name: str) -> dict[str, Any]:
    """The parameters of a format among those of the source. Raises BadOption for those of another one."""
    told: dict[str, Any] = {"path": [str(where) for where in options.places()]}
    for field in options.model_fields_set - _LISTING:
        value = getattr(options, field)
        if field in kind.model_fields:
            told[field] = _alone(kind, field, value) if field in _SEVERAL else value
        elif field not in _OWN:
            raise BadOption(f"{field}: objects of the format {name} have no such parameter", option=field)
    return told


def _alone(kind: type[FileOptions], field: str, value: Any) -> Any:
    """A parameter that CSV takes several of, as a format that takes one wants it."""
    if "tuple" in str(kind.model_fields[field].annotation):
        return value
    if len(value) > 1:
        raise BadOption(f"{field}: this format takes one", option=field)
    return value[0] if value else None


def _kind(name: str) -> type[Files[Any]]:
    found = registry.find(name)
    if not issubclass(found, Files):
        raise BadOption(f"file_format: {name} is no format of files", option="file_format")
    return found


def _format_of(name: str) -> str | None:
    """The format that a name ends with; None where it ends with none of ours."""
    found = (registry.type_for_target(name.rpartition("/")[2]) or "").lower()
    return found if found in _FORMATS else None


def _nanoseconds(text: str | None) -> int | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)
