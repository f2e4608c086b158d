"""`sqlflow fmt`: `.sf` files laid out in one way; SQL bodies and comments stay as they are."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sqlflow_dagster.cli.options import ProjectDir, project_folder
from sqlflow_dagster.cli.output import FAILED, count, say
from sqlflow_dagster.errors import PipelineError, ProjectError


def fmt(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders; the project's pipelines without. `-` is stdin to stdout."),
    ] = None,
    project: ProjectDir = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file would change.")
    ] = False,
) -> None:
    """Lay out .sf files; SQL bodies and comments are kept as written.

    Example: sqlflow fmt --check
    """
    if files == [Path("-")]:
        sys.stdout.write(_formatted(sys.stdin.buffer.read(), "<stdin>"))
        return
    changed = wrong = 0
    for path in _files(files or [project_folder(project) / "pipelines"]):
        try:
            changed += _format(path, check=check)
        except PipelineError as error:
            # The other files are laid out all the same.
            say(str(error))
            wrong += 1
    if changed:
        say(f"{count(changed, 'file')} {'would change' if check else 'changed'}")
    if wrong or (check and changed):
        raise typer.Exit(FAILED)


def _files(given: Sequence[Path]) -> list[Path]:
    return [file for path in given for file in (sorted(path.rglob("*.sf")) if path.is_dir() else [path])]


def _format(path: Path, *, check: bool) -> bool:
    """Lay out one file, and return whether that changed it."""
    try:
        before = path.read_bytes()
        after = _formatted(before, str(path)).encode()
        if after == before.removeprefix(b"\xef\xbb\xbf"):
            return False
        if not check:
            _replace(path, after)
        say(f"{'would change' if check else 'changed'} {path}")
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror}") from error
    return True


def _formatted(text: bytes, path: str) -> str:
    from sqlflow_dagster.language.render import format_script  # noqa: PLC0415 - slow, and --help needs none

    try:
        return format_script(text.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    shutil.copymode(path, part)
    part.replace(path)
