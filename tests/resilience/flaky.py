"""A connector whose reads break where a script says, in each of the three kinds of batches."""

from __future__ import annotations

import json
from contextlib import closing
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import SecretStr

from sqlflow_dagster import errors
from sqlflow_dagster.connectors.base import Arrow, Connector, Health, JsonLines, Scan, Stream, Written
from sqlflow_dagster.connectors.http import Client, HttpOptions
from sqlflow_dagster.connectors.options import Options, SourceOptions
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.sql import Sql

COLUMNS = {"id": "BIGINT"}


class FlakyOptions(SourceOptions):
    script: str
    kind: Literal["scan", "arrow", "json"] = "json"
    ordered: bool = False
    own_cursor: ClassVar[bool] = True


class FlakySinkOptions(Options):
    script: str
    max_retries: int | None = None


def _next(path):
    """Take the next answer of the script in the file; the last one stays."""
    answers = json.loads(path.read_text())
    if len(answers) > 1:
        path.write_text(json.dumps(answers[1:]))
    with path.with_suffix(".log").open("a") as log:
        log.write("x")
    return answers[0]


def _raise(step):
    name, message, *after = step
    if name == "RetryLater":
        raise errors.RetryLater(message, after=after[0] if after else None)
    raise getattr(errors, name)(message)


class Flaky(Connector[FlakyOptions]):
    """The script is a list of reads; a read is a list of numbers (a batch of ids up to it) and errors."""

    options_type: ClassVar = FlakyOptions
    sink_options_type: ClassVar = FlakySinkOptions
    family: ClassVar = "api"
    recovered: ClassVar = []

    def streams(self):
        ordered = self.options.ordered
        return [Stream(name, own_cursor=ordered, ordered=ordered) for name in ("a", "b")]

    def read(self, stream, since):
        del stream
        base = int(since.value) if since and self.options.ordered else 0
        for step in _next(self.place.root / self.options.script):
            if isinstance(step, list):
                _raise(step)
            if step <= base:
                continue
            ids = range(base + 1, step + 1)
            yield from self._batches(ids, Cursor(str(step), "BIGINT") if self.options.ordered else None)
            base = step

    def _batches(self, ids, position):
        match self.options.kind:
            case "scan":
                yield Scan(Sql(f"SELECT range AS id FROM range({ids.start}, {ids.stop})"), position=position)
            case "json":
                lines = b"".join(b'{"id": %d}\n' % number for number in ids)
                yield JsonLines([lines], COLUMNS, position=position)
            case "arrow":
                table = pa.table({"id": pa.array(ids, pa.int64())})
                yield Arrow(table.to_reader(), position=position)

    def recover(self, error):
        self.recovered.append(str(error))

    def check(self):
        return Health(ok=True, message="there")

    @classmethod
    def write(cls, rows, target, options, place):
        for step in _next(place.root / options.script):
            _raise(step)
        count = rows.copy_to(place.root / target, Sql("FORMAT csv"))
        return Written(count, None, target)


class Inside(Flaky):
    """As FLAKY, but it breaks inside a batch, and each read is one batch."""

    options_type: ClassVar = FlakyOptions

    def read(self, stream, since):
        del stream, since
        steps = _next(self.place.root / self.options.script)
        if self.options.kind == "arrow":
            schema = pa.schema([("id", pa.int64())])
            yield Arrow(pa.RecordBatchReader.from_batches(schema, _record_batches(steps)))
        elif self.options.kind == "json":
            yield JsonLines(_chunks(steps), COLUMNS)
        else:
            yield Scan(Sql("SELECT 1 AS id"), explain=None)


def _record_batches(steps):
    base = 0
    for step in steps:
        if isinstance(step, list):
            _raise(step)
        yield pa.record_batch({"id": pa.array(range(base + 1, step + 1), pa.int64())})
        base = step


def _chunks(steps):
    base = 0
    for step in steps:
        if isinstance(step, list):
            _raise(step)
        yield b"".join(b'{"id": %d}\n' % number for number in range(base + 1, step + 1))
        base = step


class Explaining(Flaky):
    """A Scan that DuckDB cannot run, which the connector explains by an error that waiting mends."""

    options_type: ClassVar = FlakyOptions

    def read(self, stream, since):
        del stream, since
        if _next(self.place.root / self.options.script) == ["broken"]:
            text = "SELECT error('connection reset by peer') AS id FROM range(1)"
            yield Scan(Sql(text), explain=lambda message: errors.RetryLater(f"explained: {message[-10:]}"))
        else:
            yield Scan(Sql("SELECT range AS id FROM range(1, 4)"))


class PagesOptions(HttpOptions):
    url: str
    token: SecretStr = SecretStr("")


class Pages(Connector[PagesOptions]):
    """An API whose answers are `{"rows": […], "next": link}`."""

    options_type: ClassVar = PagesOptions
    family: ClassVar = "api"
    by_request: ClassVar = True

    def streams(self):
        return [Stream("items")]

    def _client(self):
        token = self.options.token
        return Client(
            self.options.url,
            self.guard,
            self.options,
            credentials=lambda: {"Authorization": f"Bearer {token.get_secret_value()}"},
        )

    def read(self, stream, since):
        del stream, since
        with closing(self._client()) as client:
            link, seen = "items?page=1", set()
            while link:
                if link in seen:
                    raise errors.SourceFailed(f"the page {link} came twice")
                seen.add(link)
                page = client.get(link).json()
                yield JsonLines([b"".join(json.dumps(row).encode() + b"\n" for row in page["rows"])], COLUMNS)
                link = page.get("next")

    def check(self):
        with closing(self._client()) as client:
            return Health(
                ok=True, message="there", facts={"version": client.get("version").json()["version"]}
            )
