"""Runs ↔ the processes that drive them: a run's tags say host, container, id and start of its process.

A process id alone may have been given to another process since, so its start is compared too; and
it means nothing outside its container, also where two containers share a host name.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

RUN, HOST, CONTAINER = "sqlflow/run", "sqlflow/host", "sqlflow/container"
PID, STARTED = "sqlflow/pid", "sqlflow/process_started"
# Docker and Podman mount files of a folder that is named after the container into it.
_MOUNTED = re.compile(r"/(?:docker/containers|overlay-containers)/([0-9a-f]{64})/")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_tags(run_id: str, pid: int | None = None) -> dict[str, str]:
    """Return the tags that say which process drives a run; this one unless `pid` is given."""
    pid = pid or os.getpid()
    # A retry of the run takes over its tags, so they also say whose they are.
    here = {HOST: socket.gethostname(), CONTAINER: _container()}
    return {RUN: run_id, **here, PID: str(pid), STARTED: _process_started(pid) or ""}


def says(run_id: str, tags: Mapping[str, str]) -> bool:
    """Whether a run's tags name its own process, and not that of the run it repeats."""
    return tags.get(RUN) == run_id and HOST in tags


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the tags name a process of this host and container that is gone; of others nothing is known."""
    pid = tags.get(PID, "")
    here = tags.get(HOST) == socket.gethostname() and tags.get(CONTAINER) == _container()
    if not here or not pid.isdecimal():
        return False
    return is_gone(int(pid), tags.get(STARTED, ""))


def is_gone(pid: int, started: str | None = None) -> bool:
    """Whether there is no such process, or one that started at another time than `started`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # It lives, under another user; /proc says its start all the same.
        pass
    found = _stat(pid)
    if found is None:
        return False
    state, begun = found
    # A killed process whose parent has not asked for its status yet is still listed.
    return state in "ZX" or (bool(started) and begun != started)


@cache
def _container() -> str:
    """What tells the processes of one container from those of another, and is the same after a restart.

    The container's id where it is one of Docker or Podman, else the namespace of process ids: that
    of a machine without containers is the same after each boot.
    """
    try:
        mounted = _MOUNTED.search(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
        return mounted[1][:12] if mounted else str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _process_started(pid: int) -> str | None:
    """The boot and the time since it at which a process started, None where there is no /proc to tell."""
    found = _stat(pid)
    return found[1] if found else None


def _stat(pid: int) -> tuple[str, str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        boot = _BOOT.read_text("ascii").strip()
    except OSError:
        return None
    # The command's name may hold blanks and brackets: the fields count from the last one.
    fields = stat.rpartition(")")[2].split()
    return fields[0], f"{boot[:8]}:{fields[19]}"
