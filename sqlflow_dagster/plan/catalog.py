"""What the plan needs to know of connectors. The project brings the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One declared stream: its key and cursor, the SOURCE's own parameters already applied."""

    name: str
    primary_key: tuple[str, ...] = ()
    cursor_field: str | None = None
    own_cursor: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a SOURCE's parameters say, as far as it shapes the plan.

    `streams` is None where they have to be looked up at the source first.
    """

    sync_mode: str
    streams: tuple[StreamFacts, ...] | None
    primary_key: tuple[str, ...] = ()
    cursor_field: str | None = None
    destination_sync_mode: str | None = None
    row_provenance: bool = False
    isolate: bool = False
    loss_audit: bool = False
    quarantines: bool = False
    notices: tuple[str, ...] = ()


class Catalog(Protocol):
    """The connectors, as the plan sees them. Nothing here contacts the far side."""

    def types(self) -> tuple[str, ...]:
        """Return the connector types."""

    def type_for_target(self, target: str) -> str | None:
        """Return the type that a target's suffix or scheme says, None where it says none."""

    def describe(self, type: str, params: Mapping[str, Any]) -> SourceFacts:  # noqa: A002 - the language's word
        """Return what a SOURCE declares. Raises BadOption."""

    def check_export(
        self,
        type: str,  # noqa: A002
        target: str | None,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> None:
        """Raise BadOption where an EXPORT's OPTIONS or target do not fit; a target None is not known."""
