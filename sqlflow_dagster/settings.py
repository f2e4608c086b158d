"""Project folder + profile + environment → one frozen `Settings`.

A project is a folder with `pipelines/*.sf` and, each optional, `profiles/<name>.yml`, `.env`,
`python_udfs/` and `sqlflow.yml`. Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.sql import is_name, whose_schema

log = logging.getLogger(__name__)

# Parts of a profile that the first SQLFlow's projects have and it never read.
_FIRST_SQLFLOW = ("sources", "destinations", "performance", "logging", "testing")
DEFAULT_PROFILE = "dev"
PROJECT_FILE = "sqlflow.yml"
# YAML 1.1 counts the first to sixty, and takes the second for an octal number.
_NO_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9.]+)+|[-+]?0[0-9_]+")
_MEMORY = re.compile(
    r"none|-1|\s*[0-9]*\.?[0-9]+(e[0-9]+)?\s*([kmgt](i?b)?|(kilo|mega|giga|tera)bytes?)\s*", re.IGNORECASE
)
_M = TypeVar("_M", bound="_Model")
Scalar = str | int | float | bool | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _memory(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        raise ValueError(f"{text!r} is no amount of memory; write it as 512MB or 1.5GB")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"{name!r} is no time zone; write an IANA name such as Europe/Paris") from error
    return name


class DuckDB(_Model):
    """The `engines.duckdb` part of a profile: where tables live and what a step may use."""

    mode: Literal["persistent", "memory"] = Field(
        "persistent", description="`memory` is a temporary file that ends with the process."
    )
    path: str = Field(
        "data/warehouse.duckdb",
        validation_alias=AliasChoices("path", "database_path"),
        description="The database file, relative to the project; `:memory:` is `mode: memory`.",
    )
    memory_limit: Annotated[str, AfterValidator(_memory)] = Field(
        "2GB",
        description="DuckDB's memory limit, e.g. `512MB`. A load needs little of it, however many its rows; joins and "
        "sorts may need more, and spill beyond it.",
    )
    threads: int | None = Field(None, ge=1, description="Threads of a step; all cores by default.")
    temp_directory: str | None = Field(
        None, description="Where DuckDB spills; beside the database by default."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="The session's time zone, an IANA name."
    )
    lock_timeout_seconds: float = Field(
        600, ge=0, description="How long a step waits for another process to release the database."
    )
    allowed_directories: tuple[str, ...] = Field(
        (), description="Folders, beside `data/`, that users' SQL may read; relative to the project."
    )


class Engines(_Model):
    """The engines a profile declares."""

    duckdb: DuckDB = DuckDB()


class ConnectorProfile(_Model):
    """One entry of `connectors`: what `SOURCE name FROM "entry"` and an export's target name take."""

    type: str
    params: dict[str, Any] = Field(default_factory=dict)


class Schedule(_Model):
    """When a pipeline's job runs by itself. Where only some tables have partitions, a tick is one run of all."""

    cron: str = Field(description="Five cron fields, or `@daily` and the like.")
    timezone: str = Field("UTC", description="IANA time zone of the cron expression.")
    enabled: bool = Field(True, description="Whether it is on without a click in the web UI.")


class Retry(_Model):
    """How often Dagster runs a failed step again, and how long it waits."""

    max_retries: int = Field(2, ge=0)
    delay_seconds: float = Field(30, ge=0)
    backoff: Literal["none", "linear", "exponential"] = "exponential"
    jitter: Literal["none", "full", "plus_minus"] = "full"


class Freshness(_Model):
    """How old a pipeline's tables may be; durations are ISO 8601 or text like `36 hours`."""

    fail_after: str | None = None
    warn_after: str | None = None
    cron: str | None = Field(None, description="With `within`: due at this time of day or week.")
    within: str | None = Field(None, description="How long before the cron tick the run may have happened.")
    timezone: str = "UTC"


class Partitions(_Model):
    """Time partitions of a pipeline's tables: LOADs that are incremental by a column, and INCREMENTAL BY.

    EXPORTs whose target says `${partition_start}` have them too.
    Where the pipeline has others, there are three jobs: `NAME_partitions` for a partition of the ones, `NAME` for the
    others, and `NAME_all`, which the schedule runs, for both, each table after those that it reads.
    """

    every: Literal["hour", "day", "week", "month"] = "day"
    start: str = Field(description="The first partition's start, ISO 8601.")
    end: str | None = None
    timezone: str = "UTC"
    per_run: int | None = Field(
        1,
        ge=1,
        description="Partitions that are stored at once, and put into one run by a backfill; `null` for all.",
    )


class NewFilesSensor(_Model):
    """Runs the pipeline when a file SOURCE has new or changed files."""

    type: Literal["new_files"]
    source: str = Field(description="The SOURCE's name in the pipeline.")
    interval_seconds: int = Field(30, ge=1)
    enabled: bool = True


class UpstreamSensor(_Model):
    """Runs the pipeline when tables of other pipelines were stored anew."""

    type: Literal["upstream"]
    assets: tuple[str, ...] = Field(description="Tables as `pipeline.table`.", min_length=1)
    interval_seconds: int = Field(30, ge=1)
    enabled: bool = True


Sensor = Annotated[NewFilesSensor | UpstreamSensor, Field(discriminator="type")]


class PipelineProfile(_Model):
    """How one pipeline runs; `defaults` of the profile has the same keys for all of them."""

    schedule: Schedule | None = None
    retry: Retry | None = None
    freshness: Freshness | None = None
    partitions: Partitions | None = None
    sensors: tuple[Sensor, ...] = ()
    owners: tuple[str, ...] = Field((), description="E-mail addresses or `team:name`.")
    tags: dict[str, str] = Field(default_factory=dict)
    pool: str | None = Field(
        None, pattern=r"^\S+$", description="Dagster pool of which each step of the pipeline takes a slot."
    )
    automation: str | None = Field(
        None,
        description="When Dagster stores the assets by itself: `eager`, `on_missing` or a cron expression.",
    )
    group: str | None = Field(None, description="Asset group; the pipeline's name by default.")
    description: str | None = None
    start: str | None = Field(None, description="Where the first run of INCREMENTAL BY begins.")


class Paths(_Model):
    """Folders of the project."""

    pipelines: str = "pipelines"
    python_udfs: str = "python_udfs"


def _free_schema(name: str) -> str:
    if owner := whose_schema(name):
        raise ValueError(f"the schema {name} is {owner}; choose another one")
    if not is_name(name):
        raise ValueError("a schema has a name without control characters; leave it out for one a pipeline")
    return name


class Profile(_Model):
    """One environment: `profiles/<name>.yml`."""

    version: str | int | float | None = None
    variables: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    engines: Engines = Engines()
    connectors: dict[str, ConnectorProfile] = Field(default_factory=dict)
    # `schema` would shadow a method of pydantic's models.
    one_schema: Annotated[str, AfterValidator(_free_schema)] | None = Field(
        None, alias="schema", description="Put all pipelines' tables into this one schema."
    )
    schema_policy: Literal["strict", "guided", "permissive"] = "guided"
    defaults: PipelineProfile = PipelineProfile()
    pipelines: dict[str, PipelineProfile] = Field(default_factory=dict)
    paths: Paths = Paths()
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_file: str | None = None
    module_log_levels: dict[str, str] = Field(default_factory=dict)

    def pipeline(self, name: str) -> PipelineProfile:
        """Return how the pipeline `name` runs: its own keys, and `defaults` for those it has not."""
        own = self.pipelines.get(name)
        if own is None:
            return self.defaults
        return self.defaults.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


class ProjectFile(_Model):
    """`sqlflow.yml` at the project's root."""

    name: str | None = Field(
        None, description="The project's name in state keys; the folder's name by default."
    )
    profile: str = Field(DEFAULT_PROFILE, description="The profile used when none is asked for.")


class Settings(_Model):
    """All that is fixed before a `.sf` file is read."""

    root: Path
    project: str
    environment: str
    profile: Profile
    dotenv: dict[str, str]

    @property
    def pipeline_files(self) -> tuple[Path, ...]:
        """The `.sf` files of the project, sorted; subfolders hold files for INCLUDE."""
        return tuple(sorted((self.root / self.profile.paths.pipelines).glob("*.sf")))

    @property
    def database(self) -> Path | None:
        """The warehouse file, or None where it is to be a temporary one."""
        duckdb = self.profile.engines.duckdb
        if duckdb.mode == "memory" or duckdb.path == ":memory:":
            return None
        return self.root / duckdb.path

    @property
    def state_directory(self) -> Path:
        """Where spools, stages and caches live: `.sqlflow/` of the project, safe to delete."""
        return self.root / ".sqlflow"


def load_settings(root: Path | str, profile: str | None = None) -> Settings:
    """Return the settings of the project at `root` for one profile.

    The profile is `profile`, else `SQLFLOW_PROFILE`, else `sqlflow.yml`'s, else `dev`. A project
    without a `profiles` folder runs on the defaults.

    Raises SettingsError naming the file and the key that is wrong.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise SettingsError(f"{root}: no such folder; name the project with --project DIR")
    project = _read(root / PROJECT_FILE, ProjectFile)
    name = profile or os.environ.get("SQLFLOW_PROFILE") or project.profile
    return Settings(
        root=root,
        project=project.name or root.name,
        environment=name,
        profile=_read_profile(root, name),
        dotenv=_read_dotenv(root / ".env"),
    )


def _read_profile(root: Path, name: str) -> Profile:
    folder = root / "profiles"
    for suffix in (".yml", ".yaml"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return _read(path, Profile, _FIRST_SQLFLOW)
    known = sorted(path.stem for path in folder.glob("*.y*ml")) if folder.is_dir() else []
    if not known and name == DEFAULT_PROFILE:
        return Profile()
    raise SettingsError(
        f"{folder / name}.yml: no such profile; "
        + (f"there are {', '.join(known)}" if known else "create it")
    )


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    values = dotenv_values(path, interpolate=False)
    return {key: value for key, value in values.items() if value is not None}


class _Loader(yaml.SafeLoader):
    """YAML without tags, duplicate keys or alias bombs; dates, `12:30` and `007` stay the text that they are."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0] and _NO_NUMBER.fullmatch(value or ""):
            return "tag:yaml.org,2002:str"
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]  # as PyYAML ships it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _value in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", mark)
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # as PyYAML ships it
            raise yaml.composer.ComposerError(None, None, "aliases (`*name`) are not allowed here", mark)
        return super().compose_node(parent, index)


def _read(path: Path, model: type[_M], unused: Collection[str] = ()) -> _M:
    if not path.is_file():
        return model()
    try:
        # Both the loader's own parts and what it builds are plain data.
        document = yaml.load(path.read_text("utf-8-sig"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, Mapping):
        raise SettingsError(f"{path}: the file must be a mapping of keys, not {type(document).__name__}")
    for key in document.keys() & set(unused):
        log.info("%s: %s: the first SQLFlow took this key and did nothing with it, and so do we", path, key)
    document = {key: value for key, value in document.items() if key not in unused}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in _explain(error, model))) from error


def _explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _keys(model), n=1)
            lines.append(f"{place}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        else:
            lines.append(f"{place}: {item['msg']}")
    return lines


def _keys(model: type[BaseModel]) -> list[str]:
    """All key names below `model`: a misspelt key is looked for among them."""
    found: list[str] = []
    for definition in (schema := model.model_json_schema()).get("$defs", {}).values():
        found += definition.get("properties", {})
    return found + list(schema.get("properties", {}))
