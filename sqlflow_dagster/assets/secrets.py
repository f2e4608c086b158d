"""Text that goes to logs and events, without the secrets that a far side may have put into it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretBytes, SecretStr

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.language.variables import expand_value
from sqlflow_dagster.plan.nodes import Export, Pipeline
from sqlflow_dagster.session import Session

_PASSWORD_OF_URL = re.compile(r"(://[^\s:/@'\"]*:)[^\s/@'\"]+(?=@)")
# Of a connection string that is a secret whole: `user:password@`, `password=…`.
_PASSWORD_INSIDE = re.compile(r"://[^\s:/@]*:([^\s/@]+)@|\bpassword\s*=\s*'?([^\s'&;]+)", re.IGNORECASE)
_MARK = "***"
# Shorter ones are words that stand in any message.
_SHORTEST = 3


def without_password(text: str) -> str:
    """Return a text whose URLs have lost their passwords; one that is a variable stays."""
    return _PASSWORD_OF_URL.sub(lambda m: m[0] if "${" in m[0] else f"{m[1]}{_MARK}", text)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Takes known secrets out of texts."""

    secrets: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """Return the text with each secret, and each password of a URL, as `***`."""
        for secret in self.secrets:
            text = text.replace(secret, _MARK)
        return without_password(text)


def redactor(session: Session, pipeline: Pipeline) -> Redactor:
    """Return what takes the secrets of a pipeline's sources and exports out of texts."""
    found = {secret for options in _options(session, pipeline) for secret in _secrets(options)}
    found |= {password for secret in found for password in _passwords(secret)}
    found = {secret for secret in found if len(secret) >= _SHORTEST}
    written = found | {quote(secret, safe="") for secret in found}
    # The longest first: one secret may be a part of another.
    return Redactor(tuple(sorted(written, key=lambda secret: (-len(secret), secret))))


def _passwords(secret: str) -> Iterator[str]:
    """The passwords inside a secret: a variable's value may stand elsewhere, too, e.g. in a query."""
    for match in _PASSWORD_INSIDE.finditer(secret):
        text = match[1] or match[2]
        yield from (text, unquote(text))


def _options(session: Session, pipeline: Pipeline) -> Iterator[Any]:
    for source in pipeline.sources:
        try:
            params = expand_value(dict(source.params), session.scope(source.scope))
            yield parse(registry.find(source.type).options_type, params)[0]
        except SQLFlowError:
            # Options that cannot be read have opened nothing, so nothing can have repeated them.
            continue
    for step in (step for group in pipeline.groups for step in group.steps):
        if isinstance(step, Export):
            try:
                yield session.project.sink(step, session.scope(step.scope))[1]
            except SQLFlowError:
                continue


def _secrets(value: Any) -> Iterator[str]:
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case SecretBytes():
            yield value.get_secret_value().decode("utf-8", "replace")
        case BaseModel():
            yield from _each(value.__dict__.values())
        case dict():
            yield from _each(value.values())
        case list() | tuple() | set() | frozenset():
            yield from _each(value)


def _each(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _secrets(value)
