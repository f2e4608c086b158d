"""The forms in which people write a parameter → the one form that connectors read.

Each function takes what stood in the JSON object and returns what the model's field holds; it
raises ValueError with a text that says what to write instead.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlflow_dagster.connectors.other_tools import TUNNEL
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Condition, Operator, Value, fold

_SINK_MODES = {
    "overwrite": "replace", "w": "replace", "full-refresh": "replace", "truncate": "replace",
    "a": "append", "append-only": "append", "append_only": "append", "merge": "upsert", "append_dedup": "upsert",
}  # fmt: skip
_STORED = {"replace": "overwrite", "merge": "append_dedup", "upsert": "append_dedup"}
_SYNC_MODES = {
    "full_table": "full_refresh",
    "full": "full_refresh",
    "log_based": "cdc",
    "fullrefresh": "full_refresh",
    "full-refresh": "full_refresh",
}
_CURSORS = {"cursor_field", "replication_key", "incremental_column"}
_ISO_DURATION = re.compile(
    r"P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_UNITS = {
    "": "seconds", "s": "seconds", "sec": "seconds", "secs": "seconds", "second": "seconds",
    "m": "minutes", "min": "minutes", "mins": "minutes", "minute": "minutes",
    "h": "hours", "hr": "hours", "hrs": "hours", "hour": "hours",
    "d": "days", "day": "days", "w": "weeks", "week": "weeks", "mo": "months", "month": "months",
    "y": "years", "year": "years", "ms": "milliseconds", "millisecond": "milliseconds",
}  # fmt: skip
_UNITS |= {unit: unit for unit in (*_UNITS.values(),)}
_OPERATORS: dict[str, Operator] = {
    "=": "=", "==": "=", "eq": "=", "!=": "!=", "<>": "!=", "ne": "!=",
    "<": "<", "lt": "<", "<=": "<=", "lte": "<=", "le": "<=",
    ">": ">", "gt": ">", ">=": ">=", "gte": ">=", "ge": ">=",
    "in": "IN", "not in": "NOT IN", "not_in": "NOT IN",
}  # fmt: skip
_COMPARISON = re.compile(r"\s*(>=|<=|!=|<>|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
# What no glob has: `\\d`, `^…`, `…$`, and `.*` at the beginning of a name.
_REGEX = re.compile(r"\\[A-Za-z.$^]|^\^|\$$|(?:^|/)\.[*+]|\(\?")
_NUMBER = re.compile(r"[+-]?(\d+)(\.\d+)?")


def lower(value: Any) -> Any:
    """Return text in lower case; anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value


def sink_mode(value: Any) -> Any:
    """Return our name of how an export writes, also for `overwrite`, `merge`, and a file's `w` and `a`."""
    name = lower(value)
    return _SINK_MODES.get(name, name) if isinstance(name, str) else name


def check_keys(mode: str, keys: Sequence[str]) -> None:
    """Raise BadOption for an export by `upsert` without keys, or with keys and by another mode."""
    if mode == "upsert" and not keys:
        raise BadOption("keys: mode `upsert` needs the columns that name a row", option="keys")
    if mode != "upsert" and keys:
        raise BadOption(f"keys: mode `{mode}` does not go by them; use `upsert`", option="keys")


def destination_sync_mode(value: Any) -> Any:
    """Return Airbyte's name of how rows are stored, also for `replace`, `merge` and `upsert`."""
    name = lower(value)
    return _STORED.get(name, name) if isinstance(name, str) else name


def sync_mode(value: Any) -> Any:
    """Return our name of a sync mode, also for `FULL_TABLE`, `INCREMENTAL` and `LOG_BASED`.

    Raises ValueError for one that says how rows are stored, too.
    """
    name = lower(value)
    if isinstance(name, str) and (both := re.fullmatch(r"(full_refresh|incremental)_(\w+)", name)):
        stored = {"deduped_history": "append_dedup"}.get(both[2], both[2])
        raise ValueError(
            f"write two parameters: `sync_mode`: `{both[1]}`, and `destination_sync_mode`: `{stored}`"
        )
    if name == "standard":
        raise ValueError("write `full_refresh`, or `incremental` and a `cursor_field`")
    if name == "xmin":
        raise ValueError("write `incremental`, and `xmin` as the `cursor_field`")
    return _SYNC_MODES.get(name, name) if isinstance(name, str) else value


def replication_method(value: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters that Airbyte's `{"method": "CDC", "publication": …}` stands for.

    It says how streams are read that are `incremental`; `sync_mode` beside it may say that this is none.
    """
    found = {name: item for name, item in value.items() if name != "method"}
    if sync_mode(beside.get("sync_mode")) == "full_refresh":
        return found
    match lower(value.get("method")):
        case "cdc":
            return found | {"sync_mode": "cdc"}
        case "xmin" if beside.keys() & _CURSORS:
            raise ValueError("Xmin is its own cursor; leave `cursor_field` out")
        case "xmin":
            return found | {"sync_mode": "incremental", "cursor_field": "xmin"}
        case "standard":
            return found | ({"sync_mode": "incremental"} if beside.keys() & _CURSORS else {})
    raise ValueError(f"{value.get('method')!r} is no method; there are CDC, Xmin and Standard")


def by_cursor(value: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `replication_method` returns, where neither the log nor `xmin` can be read. Raises ValueError."""
    if (method := lower(value.get("method"))) in ("cdc", "xmin"):
        raise ValueError(
            f"{method} is not read here; write `incremental` and a `cursor_field`, or leave it out"
        )
    return replication_method(value, beside)


def tunnel_method(value: Mapping[str, Any], _beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what Airbyte's `{"tunnel_method": "NO_TUNNEL"}` stands for: nothing. Raises ValueError for others."""
    if lower(value.get("tunnel_method")) != "no_tunnel":
        raise ValueError(TUNNEL)
    return {}


def delimiter(value: Any) -> Any:
    r"""Return what stands between two values, a tab also for `\t`; an empty one is found out.

    Raises ValueError for a letter or a figure: it is the delimiter's name, or a mistake.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\\t", "\t")
    if any(sign.isalnum() for sign in text):
        raise ValueError(f"{value!r} is no delimiter; write the sign itself, and \\t for a tab")
    return text or None


def globs(value: Any) -> Any:
    """Return a tuple of globs, also for one. Raises ValueError for a regular expression, which matches other names."""
    found = texts(value)
    for text in found if isinstance(found, list | tuple) else ():
        if isinstance(text, str) and _REGEX.search(text):
            raise ValueError(f"{text!r} is a regular expression; write a glob, e.g. `**/*.csv`")
    return found


def glob(value: Any) -> Any:
    """Return a glob. Raises ValueError for a regular expression."""
    globs(value)
    return value


def header(value: Any) -> Any:
    """Return whether there is a header. Raises ValueError for pandas' number of its line: a 0 would mean none."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError("write true where there is one, false where there is none")  # noqa: TRY004
    return value


def path(value: Any) -> Any:
    """Return a dotted path, also for a list of its parts; an empty one is None."""
    if isinstance(value, list | tuple):
        if not all(isinstance(part, str) for part in value):
            raise ValueError("write one column, as text or as a list of the parts of its path")
        return ".".join(value) or None
    return value.strip() or None if isinstance(value, str) else value


def keys(value: Any) -> Any:
    """Return the columns of a key: `"a, b"`, `["a", "b"]` and `[["a"], ["b"]]` are the same."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        # A column's name in a list is taken as it is, blanks at its ends too.
        names = tuple(item if isinstance(item, str) and item.strip() else path(item) for item in value)
    elif isinstance(value, str):
        names = tuple(part.strip() for part in value.split(",") if part.strip())
    else:
        raise ValueError("write a column, or a list of columns")  # noqa: TRY004 - what pydantic collects
    if len({fold(str(name)) for name in names}) != len(names):
        raise ValueError("a column is named twice")
    return names


def names(value: Any) -> Any:
    """Return a tuple of column names, also for one name or a comma-separated text."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        raise ValueError("write a list of names; the types of columns stand in `types`")  # noqa: TRY004
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def masks(value: Any) -> Any:
    """Return column → `hash` or `redact`; a list of columns means `hash`."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {column: lower(how) for column, how in value.items()}
    return dict.fromkeys(names(value), "hash")


def interval(value: Any) -> Any:
    """Return a DuckDB interval text such as `7 days` for `P7D`, `7 days`, `7d` or seconds."""
    if value is None or value == "":
        return None
    text = str(value).strip()
    iso = _ISO_DURATION.fullmatch(text)
    if iso and any(iso.groups()):
        return " ".join(f"{amount} {unit}" for unit, amount in iso.groupdict().items() if amount)
    plain = _AMOUNT.fullmatch(text)
    unit = _UNITS.get(plain.group(2).lower()) if plain else None
    if plain is None or unit is None or isinstance(value, bool):
        raise ValueError(f"{text!r} is no length of time; write e.g. 'P7D', '7 days' or seconds")
    return f"{plain.group(1)} {unit}"


def moment(value: Any) -> Any:
    """Return an ISO 8601 date or time as text, or a number as text for cursors that are numbers."""
    if value is None or value == "":
        return None
    text = str(value).strip()
    if _NUMBER.fullmatch(text):
        return text
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date; write e.g. '2024-01-31' or '2024-01-31T08:00:00Z'") from None
    return text


def rate(value: Any) -> Any:
    """Return requests a minute, also for `10/second` and the like."""
    if not isinstance(value, str) or "/" not in value:
        return value
    amount, _slash, unit = value.partition("/")
    seconds = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
    per = seconds.get(unit.strip().lower().removesuffix("s") or "s")
    if per is None or not _NUMBER.fullmatch(amount.strip()):
        raise ValueError(f"{value!r} is no rate; write requests a minute, or e.g. '10/second'")
    return float(amount) * 60 / per


def conditions(value: Any) -> Any:
    """Return `Condition`s, to be read as joined by AND; lists mean IN, None means NULL."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(item for column, wanted in value.items() for item in _of_column(column, wanted))
    if isinstance(value, list | tuple):
        return tuple(item for entry in value for item in _of_entry(entry))
    raise ValueError('write an object such as {"amount": ">= 300", "country": ["DE", "AT"]}')


def partition_conditions(value: Any) -> Any:
    """Return conditions on partitions, also from text such as `year=2024/month>=06`."""
    if not isinstance(value, str):
        return conditions(value)
    found: list[Condition] = []
    for part in filter(None, map(str.strip, re.split(r"/|,|&|\band\b", value, flags=re.IGNORECASE))):
        pair = re.fullmatch(r"([^<>=!]+?)\s*((?:>=|<=|!=|<>|==|=|>|<).*)", part)
        if pair is None:
            raise ValueError(f'{part!r} is no condition; write e.g. "year=2024/month=06"')
        found += _of_column(pair[1], pair[2])
    return tuple(found)


def _of_entry(entry: Any) -> Iterator[Condition]:
    if isinstance(entry, Condition):
        yield entry
    elif isinstance(entry, Mapping) and {"column", "operator", "value"} == set(entry):
        yield _condition(entry["column"], entry["operator"], entry["value"])
    elif isinstance(entry, Mapping):
        for column, wanted in entry.items():
            yield from _of_column(column, wanted)
    else:
        raise ValueError('write conditions as objects such as {"amount": ">= 300"}')


def _of_column(column: str, wanted: Any) -> Iterator[Condition]:
    if isinstance(wanted, Mapping):
        for operator, operand in wanted.items():
            yield from _compared(column, operator, operand)
    elif isinstance(wanted, list | tuple):
        yield _condition(column, "IN", wanted)
    elif isinstance(wanted, str) and (found := _COMPARISON.fullmatch(wanted)):
        yield _condition(column, found.group(1), _operand(found.group(2)))
    else:
        yield _condition(column, "=", wanted)


def _compared(column: str, operator: str, operand: Any) -> Iterator[Condition]:
    if operator.strip().lower() == "between" and isinstance(operand, list | tuple) and len(operand) == 2:
        yield _condition(column, ">=", operand[0])
        yield _condition(column, "<=", operand[1])
    else:
        yield _condition(column, operator, operand)


def _condition(column: Any, operator: Any, operand: Any) -> Condition:
    sign = _OPERATORS.get(" ".join(str(operator).lower().split()))
    if sign is None:
        raise ValueError(f"{column}: {operator!r} is no comparison; there are {', '.join(_OPERATORS)}")
    several = isinstance(operand, list | tuple)
    if several and sign in ("=", "!="):
        sign = "IN" if sign == "=" else "NOT IN"
    values = tuple(operand) if several else (operand,)
    if not all(item is None or isinstance(item, str | int | float | bool | Decimal) for item in values):
        raise ValueError(f"{column}: compare with text, numbers, true, false or null")
    if not values:
        raise ValueError(f"{column}: the list is empty and would match no row")
    if len(values) > 1 and sign not in ("IN", "NOT IN"):
        raise ValueError(f"{column}: {sign} takes one value")
    if None in values and sign not in ("=", "!=", "IN", "NOT IN"):
        raise ValueError(f'{column}: nothing is {sign} null; write null or "!= null"')
    return Condition(str(column), sign, cast("tuple[Value, ...]", values))


def _operand(text: str) -> Value:
    """The value after an operator: a number where it looks like one, text without its quotes else."""
    if number := _NUMBER.fullmatch(text):
        return Decimal(text) if number.group(2) else int(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace(text[0] * 2, text[0])
    return {"null": None, "true": True, "false": False}.get(text.lower(), text)


def paths(value: Any) -> Any:
    """Return a tuple of paths, also for one path."""
    return (value,) if isinstance(value, str) and value.strip() else value


def texts(value: Any) -> Any:
    """Return a tuple of texts, also for one text; None is none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def encoding(value: Any) -> Any:
    """Return Python's name of a text encoding, `utf-8` for all of its spellings.

    Raises ValueError for one that Python does not know.
    """
    if not isinstance(value, str):
        return value
    try:
        name = codecs.lookup(value.strip()).name
    except LookupError:
        raise ValueError(f"{value!r} is no encoding; write e.g. 'utf-8', 'latin-1' or 'cp1252'") from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else name
