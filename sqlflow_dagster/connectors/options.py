"""PARAMS and OPTIONS objects → frozen models, every problem of one object reported together.

The parameters here are those of every source; a connector's own class adds to them. A name that
other tools or earlier releases use is an alias: when both it and the present name are given, the
present one wins and a notice says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from inspect import isclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sqlflow_dagster.connectors import parameters as read
from sqlflow_dagster.connectors.other_tools import Foreign
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.resilience.policy import ResilienceOptions
from sqlflow_dagster.sql import Condition, fold

SyncMode = Literal["full_refresh", "incremental", "cdc"]
DestinationSyncMode = Literal["overwrite", "append", "append_dedup"]
SchemaPolicy = Literal["strict", "guided", "permissive"]
Masking = Literal["hash", "redact"]
# An object of parameters, and those beside it → the parameters it stands for.
Spread = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
# Of objects of other tools, the parameter beside them that they say anew.
_REPLACED = {"replication_method": "sync_mode", "provider": "schema"}


class Options(BaseModel):
    """What a PARAMS or OPTIONS object may hold: unknown names are refused, values frozen.

    `aliases` maps other names to the present one. `refused` maps a name that the class inherits,
    but cannot honour, to the reason; `idle` one that needs no honouring, field or not, to the notice.
    `spread` maps a name under which other tools have an object to what makes parameters of it;
    `foreign` one that they have, and that is none here, to what to write instead.
    """

    # Built when first used: most classes only lend their fields to others.
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )

    aliases: ClassVar[Mapping[str, str]] = {}
    refused: ClassVar[Mapping[str, str]] = {}
    idle: ClassVar[Mapping[str, str]] = {}
    spread: ClassVar[Mapping[str, Spread]] = {}
    foreign: ClassVar[Mapping[str, Foreign]] = {}


class SourceOptions(Options):
    """The parameters of every source (defaults in the fields)."""

    aliases: ClassVar[Mapping[str, str]] = {
        "replication_method": "sync_mode",
        "replication_key": "cursor_field",
        "incremental_column": "cursor_field",
        "key_properties": "primary_key",
        "unique_key": "primary_key",
        "write_mode": "destination_sync_mode",
        "write_disposition": "destination_sync_mode",
        "update_key": "cursor_field",
        "default_replication_method": "sync_mode",
        "included_columns": "columns",
        "usecols": "columns",
        "excluded_columns": "exclude_columns",
        "lookback": "lookback_window",
        "timeout": "timeout_seconds",
        "retries": "max_retries",
    }
    # What this connector can do, and whether it knows its cursor without `cursor_field`.
    sync_modes: ClassVar[tuple[SyncMode, ...]] = ("full_refresh", "incremental")
    own_cursor: ClassVar[bool] = False

    sync_mode: Annotated[SyncMode, BeforeValidator(read.sync_mode)] = Field(
        "full_refresh", description="`full_refresh`, `incremental`, or `cdc` where the connector has it."
    )
    cursor_field: Annotated[str | None, BeforeValidator(read.path)] = Field(
        None,
        description="Column that grows with every change. A dotted path, or a list of its parts, names a field "
        "of a struct, which is then a column of that name too. "
        "`incremental` needs it unless the connector has a cursor of its own.",
    )
    primary_key: Annotated[tuple[str, ...], BeforeValidator(read.keys)] = Field(
        (), description="Column or columns that name a row; a string, a list, or a list of paths."
    )
    destination_sync_mode: Annotated[
        DestinationSyncMode | None, BeforeValidator(read.destination_sync_mode)
    ] = Field(None, description="`overwrite`, `append` or `append_dedup`: the same as MODE of the LOAD.")
    lookback_window: Annotated[str | None, BeforeValidator(read.interval)] = Field(
        None, description="Read again this far behind the cursor: `P7D`, `7 days`, or seconds."
    )
    start_date: Annotated[str | None, BeforeValidator(read.moment)] = Field(
        None, description="Where the first sync begins, ISO 8601."
    )
    end_date: Annotated[str | None, BeforeValidator(read.moment)] = Field(
        None, description="Where every sync ends (this moment excluded), ISO 8601."
    )
    batch_size: int | None = Field(None, ge=1, le=10_000_000, description="Rows that travel together.")
    timeout_seconds: float | None = Field(None, gt=0, description="Longest wait for one answer, in seconds.")
    max_retries: int | None = Field(None, ge=0, le=100, description="Tries after the first one.")
    rate_limit: Annotated[float | None, BeforeValidator(read.rate)] = Field(
        None, gt=0, description="Requests a minute; also `10/second`, `600/minute`, `36000/hour`."
    )
    resilience: ResilienceOptions = Field(
        ResilienceOptions(),
        description="How it is tried again, and how often it is asked; see below.",
    )
    schema_policy: Annotated[SchemaPolicy, BeforeValidator(read.lower)] = Field(
        "guided",
        description="What a changed schema does: `strict`, `guided` or `permissive`; where it is "
        "left out, the profile's.",
    )
    columns: Annotated[tuple[str, ...], BeforeValidator(read.names)] = Field(
        (), description="Columns to load; all of them by default."
    )
    exclude_columns: Annotated[tuple[str, ...], BeforeValidator(read.names)] = Field(
        (), description="Columns that are never stored."
    )
    mask: Annotated[Mapping[str, Masking], BeforeValidator(read.masks)] = Field(
        default_factory=dict,
        description="Columns stored as a hash (`hash`) or a fixed mark (`redact`); a list means `hash`.",
    )
    filters: Annotated[tuple[Condition, ...], BeforeValidator(read.conditions)] = Field(
        (),
        description='Rows to load: `{"col": ">= 300"}`, `{"col": {">": 300, "<": 500}}`, '
        '`{"col": [1, 2]}`, `{"col": "x"}`.',
    )
    row_provenance: bool = Field(
        False,
        description="Keep in `_sqlflow_load` which LOAD, and in `_sqlflow_file` which file, each row came "
        "from: changed files replace their rows, and several LOADs without a key may share a table.",
    )
    loss_audit: bool = Field(
        False,
        description="After each load, count at the source the rows that no later read brings again, and compare with "
        "the table; fewer there is a failed check.",
    )
    isolate: bool = Field(False, description="One asset for each stream instead of one group.")

    @property
    def quarantines(self) -> bool:
        """Whether rows that do not fit are set aside, instead of the load failing."""
        return self.schema_policy == "permissive"

    @model_validator(mode="after")
    def _agree(self) -> SourceOptions:
        """Refuse parameters that contradict each other; all that do are named at once."""
        problems = [*self._cursor_problems()]
        if self.sync_mode not in self.sync_modes:
            problems.append(f"sync_mode: {self.sync_mode!r} is not one of {', '.join(self.sync_modes)} here")
        problems.extend(self.problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> list[str]:
        """Return what is wrong between this connector's own parameters, as `name: message` lines."""
        return []

    def _cursor_problems(self) -> list[str]:
        if self.cursor_field is None:
            if self.sync_mode == "incremental" and not self.own_cursor:
                return [
                    "cursor_field: incremental reading needs it; name a column that grows with each change"
                ]
            return []
        column = fold(self.cursor_field)
        problems = []
        if column in {fold(name) for name in self.exclude_columns}:
            problems.append(f"exclude_columns: {self.cursor_field!r} is the cursor and must be stored")
        if column in {fold(name) for name in self.mask}:
            problems.append(f"mask: {self.cursor_field!r} is the cursor and must be stored as it is")
        return problems


_M = TypeVar("_M", bound=BaseModel)


def parse(options_type: type[_M], params: Mapping[str, Any]) -> tuple[_M, tuple[str, ...]]:
    """Return the model of `params` and notices for people; text such as `"5"` becomes a number.

    Raises BadOption with one line a problem; its `option` is the first one's name.
    """
    given, notices, written = _present_names(options_type, _spread(options_type, params))
    problems = [*_unknown(options_type, given), *_refused(options_type, given)]
    notices += [f"{name}: {why}" for name, why in _inherited(options_type, "idle").items() if given.get(name)]
    fields = _fields(options_type)
    known = {fields[name]: value for name, value in given.items() if name in fields}
    try:
        model = options_type.model_validate(known)
    except ValidationError as error:
        problems += _explained(error, options_type)
        raise _bad(problems, written) from None  # pydantic's own text shows values, which may be secret
    if problems:
        raise _bad(problems, written)
    return model, tuple(notices)


def needless(options_type: type[BaseModel]) -> Mapping[str, str]:
    """Return the parameters that need no honouring, each with the notice about it."""
    return _inherited(options_type, "idle")


def _bad(problems: list[str], written: Mapping[str, str]) -> BadOption:
    """What is wrong, under the names that stand in the object."""
    problems = [_under(problem, written) for problem in problems]
    option = problems[0].partition(":")[0].partition(".")[0]
    return BadOption("\n".join(problems), option=option)


def _under(problem: str, written: Mapping[str, str]) -> str:
    name = re.split(r"[.:]", problem, maxsplit=1)[0]
    return written.get(name, name) + problem[len(name) :]


def _inherited(options_type: type[BaseModel], attribute: str) -> dict[str, Any]:
    """The class's and its bases' mappings in one, the class's own entries winning."""
    merged: dict[str, Any] = {}
    for base in reversed(options_type.__mro__):
        merged |= vars(base).get(attribute, {})
    # A connector may have made a field of a name that is an alias, or a reason, of its base.
    return {name: text for name, text in merged.items() if text is not None}


def _fields(options_type: type[BaseModel]) -> dict[str, str]:
    """The model's fields by the names that people write: `schema` is the field `schema_`."""
    return {field.alias or name: name for name, field in options_type.model_fields.items()}


def _spread(options_type: type[BaseModel], params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters with those that an object of another tool stands for in its place.

    Raises BadOption where it stands for none, or for others than stand beside it.
    """
    for name, meant in _inherited(options_type, "spread").items():
        value = params.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            raise BadOption(f"{name}: a SOURCE reads one of them; write one for each", option=name)
        if isinstance(value, Mapping):
            beside = {other: item for other, item in params.items() if other != name}
            try:
                found = meant(value, beside)
            except ValueError as error:
                raise BadOption(f"{name}: {error}", option=name) from None
            names = [other for other in found if other != _REPLACED.get(name)]
            if twice := [other for other in names if beside.get(other, found[other]) != found[other]]:
                raise BadOption(f"{name}: {twice[0]!r} stands in it and beside it, and differs", option=name)
            params = {**beside, **found}
    return params


def _present_names(
    options_type: type[BaseModel], params: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    fields = _fields(options_type)
    aliases = {old: new for old, new in _inherited(options_type, "aliases").items() if old not in fields}
    foreign = _inherited(options_type, "foreign")
    given = {
        name: value
        for name, value in params.items()
        if name not in aliases
        and not (name in foreign and name not in fields and foreign[name].asks_nothing(value))
    }
    notices: list[str] = []
    used: dict[str, str] = {}
    for old, new in aliases.items():
        if old not in params:
            continue
        if new in params or new in used:
            notices.append(f"both {(used.get(new) or new)!r} and {old!r} are given; {old!r} is ignored")
            continue
        given[new] = params[old]
        used[new] = old
    return given, notices, used


def _unknown(options_type: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    fields = _fields(options_type)
    refused, idle = _inherited(options_type, "refused"), _inherited(options_type, "idle")
    foreign = _inherited(options_type, "foreign")
    names = [name for name in [*fields, *_inherited(options_type, "aliases")] if name not in refused]
    problems = []
    for name in given:
        if name in fields or name in idle or name in refused:
            continue
        if name in foreign:
            problems.append(f"{name}: {foreign[name].advice}")
            continue
        near = difflib.get_close_matches(_snake(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(fields))}"
        problems.append(f"{name}: unknown parameter; {hint}")
    return problems


def _snake(name: str) -> str:
    """A name as ours are written: `syncMode` and `sync-mode` are `sync_mode`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name).casefold()


def _refused(options_type: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    refused = _inherited(options_type, "refused")
    return [f"{name}: {refused[name]}" for name in given if name in refused]


def _nearest(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """What a misspelt key of an object inside the parameters may have meant."""
    for name in place[:-1]:
        found = model.model_fields.get(str(name))
        if found and isclass(found.annotation) and issubclass(found.annotation, BaseModel):
            model = found.annotation
    near = difflib.get_close_matches(str(place[-1]).casefold(), model.model_fields, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(model.model_fields))}"


def _explained(error: ValidationError, options_type: type[BaseModel]) -> list[str]:
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        message = item["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in item["loc"])
        if not place:
            problems += message.splitlines()
        elif item["type"] == "extra_forbidden":
            problems.append(f"{place}: unknown parameter; {_nearest(item['loc'], options_type)}")
        elif item["type"] == "missing":
            field = options_type.model_fields.get(place)
            about = f": {field.description}" if field and field.description else ""
            problems.append(f"{place}: this parameter is required{about}")
        else:
            problems.append(f"{place}: {message[:1].lower()}{message[1:]}")
    return problems
