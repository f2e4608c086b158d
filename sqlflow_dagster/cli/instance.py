"""Where Dagster keeps a project's history, and where log lines go: set up before a run."""

from __future__ import annotations

import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sqlflow_dagster.errors import SettingsError

if TYPE_CHECKING:
    from sqlflow_dagster.settings import Settings

_HOME = "DAGSTER_HOME"


def use_instance(root: Path) -> None:
    """Make `.dagster/` of the project Dagster's home, unless the environment names another.

    Raises SettingsError where that folder cannot be used.
    """
    given = os.environ.get(_HOME)
    if given:
        if not (Path(given).is_absolute() and Path(given).is_dir()):
            raise SettingsError(
                f"{_HOME}={given}: it must be the absolute path of a folder; unset it to use {root}/.dagster"
            )
        return
    home = root.resolve() / ".dagster"
    try:
        home.mkdir(exist_ok=True)
        _write_once(home / ".gitignore", "*\n")
        template = files("sqlflow_dagster.cli") / "instance.yaml"
        _write_once(home / "dagster.yaml", template.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{home}: cannot keep Dagster's history there ({error.strerror}); "
            f"make the folder writable, or set {_HOME} to another"
        ) from error
    os.environ[_HOME] = str(home)


def use_logging(settings: Settings) -> None:
    """Send log lines where the profile says: stderr, or `log_file` of the project.

    Raises SettingsError for a level or a file that cannot be.
    """
    profile = settings.profile
    levels = {"sqlflow_dagster": profile.log_level, **profile.module_log_levels}
    file = settings.root / profile.log_file if profile.log_file else None
    try:
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(
            level=logging.WARNING,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s" if file else "%(message)s",
            filename=file,
        )
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level.upper())
    except (ValueError, OSError) as error:
        raise SettingsError(f"profiles/{settings.environment}.yml: logging: {error}") from error


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    # Another process may be doing the same; none of them sees half a file.
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text, "utf-8")
    part.replace(path)
