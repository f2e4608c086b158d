"""A connector whose far side is a folder of scripts: what each read of a stream meets."""

from __future__ import annotations

import json
from typing import ClassVar

from pydantic import SecretStr

from sqlflow_dagster import errors
from sqlflow_dagster.connectors.base import Connector, Health, JsonLines, Stream
from sqlflow_dagster.connectors.options import SourceOptions


class FarSideOptions(SourceOptions):
    scripts: str
    stream_names: tuple[str, ...]
    password: SecretStr = SecretStr("")


class FarSide(Connector[FarSideOptions]):
    """`<scripts>/<stream>.json` is a list of answers; each read takes the next, the last one for ever.

    An answer is a list of rows, or `[error, message, after]` with an error's class name.
    """

    options_type: ClassVar = FarSideOptions
    family: ClassVar = "api"

    def streams(self):
        return [Stream(name) for name in self.options.stream_names]

    def read(self, stream, since):
        del since
        script = self.place.root / self.options.scripts / f"{stream.name}.json"
        answers = json.loads(script.read_text())
        if len(answers) > 1:
            script.write_text(json.dumps(answers[1:]))
        answer = answers[0]
        if answer and isinstance(answer[0], str):
            raise _error(*answer)
        columns = {"id": "BIGINT", "name": "VARCHAR", "at": "TIMESTAMP"}
        yield JsonLines([b"".join(json.dumps(row).encode() + b"\n" for row in answer)], columns)

    def check(self):
        return Health(ok=True, message="there")


def _error(name, message, after=None):
    if name == "Defect":
        return ZeroDivisionError(message)
    if name == "RetryLater":
        return errors.RetryLater(message, after=after)
    return getattr(errors, name)(message)
