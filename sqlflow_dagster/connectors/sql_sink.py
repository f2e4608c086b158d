"""What exports to a table of a database server share: which table is meant, and what a refusal means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from pydantic import SecretStr

from sqlflow_dagster.connectors import parameters
from sqlflow_dagster.connectors.sql_options import Connecting, ServerSinkOptions
from sqlflow_dagster.connectors.tables import Name, table_name
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, RetryLater, SourceError


class SinkOptions(Connecting, ServerSinkOptions):
    """Where a server is, and how its table is written."""


S = TypeVar("S", bound=SinkOptions)


def target_of(target: str, options: S, home: Callable[[S], str]) -> tuple[S, Name]:
    """Return the options with the target's address in them, and the table; `home` is where bare names lie.

    Raises BadOption where no table is named or two are, where two servers are, `upsert` has no keys, or another mode
    has some.
    """
    address, _, fragment = target.partition("#")
    if "://" in address:
        if options.connection and options.connection.get_secret_value() != address:
            raise BadOption(
                "connection: the target says where the server is; leave it out", option="connection"
            )
        options = options.model_copy(update={"connection": SecretStr(address)})
        try:
            options.parts()
        except ValueError as error:
            raise BadOption(str(error).replace("connection:", "the target:"), option="connection") from None
    parameters.check_keys(options.mode, options.keys)
    names = [text for text in (options.table, fragment if "://" in address else "") if text]
    if not names:
        raise BadOption('table: name the table, e.g. OPTIONS {"table": "mart.revenue"}', option="table")
    found = [table_name(text, home(options)) for text in names]
    if found[0] != found[-1]:
        raise BadOption(f"table: the target names {fragment}, and this {options.table}", option="table")
    return options, found[0]


@contextmanager
def refused(translated: AbstractContextManager[None], grants: str) -> Iterator[None]:
    """Turn refusals of `translated` into an export's; what waiting or access (`grants`) mends stays what it is."""
    try:
        with translated:
            yield
    except RetryLater:
        raise
    except NotAllowed as error:
        said = str(error).partition("; GRANT ")[0]
        raise NotAllowed(f"{said}; GRANT {grants}; nothing was stored") from error
    except SourceError as error:
        raise ExportFailed(f"{error}; nothing was stored") from error
