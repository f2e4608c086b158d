"""A connector whose far side is whatever a test says: pages of any kind, and failures between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import SecretStr

from sqlflow_dagster.connectors.base import Connector, Health, Stream
from sqlflow_dagster.connectors.options import SourceOptions


@dataclass
class FarSide:
    """The streams, and for each read an iterable of batches; an exception among them is raised."""

    streams: Sequence[Stream] = (Stream("data"),)
    answer: Callable[[Stream, Any], Any] = lambda _stream, _since: ()
    asked: list[Any] = field(default_factory=list)
    closed: int = 0


FAR_SIDES: dict[str, FarSide] = {}


class HostileOptions(SourceOptions):
    far_side: str
    password: SecretStr | None = None


class Hostile(Connector[HostileOptions]):
    options_type: ClassVar = HostileOptions
    family: ClassVar = "api"

    def streams(self):
        return FAR_SIDES[self.options.far_side].streams

    def read(self, stream, since):
        far = FAR_SIDES[self.options.far_side]
        far.asked.append(since)
        for item in far.answer(stream, since):
            if isinstance(item, BaseException):
                raise item
            yield item

    def check(self):
        return Health(ok=True, message="there")

    def close(self):
        FAR_SIDES[self.options.far_side].closed += 1
