"""Projects made of `.sf` texts, planned with a small catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sqlflow_dagster.errors import BadOption, PipelineError
from sqlflow_dagster.plan.build import build
from sqlflow_dagster.plan.catalog import SourceFacts, StreamFacts
from sqlflow_dagster.settings import load_settings

KNOWN = {
    "path", "sync_mode", "cursor_field", "primary_key", "destination_sync_mode", "row_provenance",
    "isolate", "streams", "own_cursor", "host", "password", "port", "has_header",
}  # fmt: skip
SUFFIXES = {".csv": "CSV", ".json": "JSON", ".parquet": "PARQUET"}


class Shelf:
    """A `Catalog` of types that take the common parameters; `streams` names a source's streams, null those not known yet."""

    def types(self) -> tuple[str, ...]:
        return ("CSV", "JSON", "PARQUET", "POSTGRES", "S3")

    def type_for_target(self, target: str) -> str | None:
        return SUFFIXES.get(Path(target).suffix)

    def describe(self, type: str, params: Mapping[str, Any]) -> SourceFacts:  # noqa: A002 - as the Protocol
        self._find(type)
        unknown = [f"{name}: no such parameter" for name in params if name not in KNOWN]
        if unknown:
            raise BadOption("\n".join(unknown), option=unknown[0].partition(":")[0])
        keys = params.get("primary_key", ())
        keys = (keys,) if isinstance(keys, str) else tuple(keys)
        cursor = params.get("cursor_field")
        streams = params.get("streams", ["rows"])
        return SourceFacts(
            sync_mode=params.get("sync_mode", "full_refresh"),
            primary_key=keys,
            cursor_field=cursor,
            destination_sync_mode=params.get("destination_sync_mode"),
            row_provenance=params.get("row_provenance", False),
            isolate=params.get("isolate", False),
            streams=None
            if streams is None
            else tuple(
                StreamFacts(name, keys, cursor, own_cursor=params.get("own_cursor", False))
                for name in streams
            ),
            notices=("has_header is old",) if "has_header" in params else (),
        )

    def check_export(
        self,
        type: str,  # noqa: A002
        target: str | None,  # noqa: ARG002
        options: Mapping[str, Any],
        params: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        self._find(type)
        for name in options:
            if name not in ("header", "table", "mode"):
                raise BadOption(f"{name}: no such option", option=name)

    def _find(self, kind: str) -> None:
        if kind not in self.types():
            raise BadOption(f"no connector has the TYPE {kind}; there are {self.types()}", option="type")


class Desk:
    """A project's folder and the plan of what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def plan(self, *texts: str, variables: Mapping[str, Any] | None = None, profile: str = "", **files: str):
        """Plan the texts as pipelines `p`, `p2`, …, and those given by name."""
        if profile:
            self.write("profiles/dev.yml", profile)
        named = {f"p{n}" if n > 1 else "p": text for n, text in enumerate(texts, 1)} | files
        for name, text in named.items():
            self.write(f"pipelines/{name}.sf", text)
        return build(load_settings(self.root), Shelf(), variables or {})

    def problems(self, *texts: str, **others: Any) -> list[str]:
        """Return the problems of a project that must not plan, one text each."""
        with pytest.raises(PipelineError) as caught:
            self.plan(*texts, **others)
        return [str(problem) for problem in caught.value.problems]

    def steps(self, *texts: str, **others: Any) -> list:
        """Return the steps of the pipeline `p` in the order of its groups."""
        return [step for group in self.plan(*texts, **others).pipeline("p").groups for step in group.steps]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.delenv("SQLFLOW_PROFILE", raising=False)
    (tmp_path / "pipelines").mkdir()
    return Desk(tmp_path)
