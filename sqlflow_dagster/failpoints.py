"""Named places where a test may kill the process, to show that nothing is lost or doubled there.

`SQLFLOW_FAILPOINT=before_commit:kill` sends SIGKILL to the own process the first time that place
is passed; `before_commit:kill:3` the third time. Unset, `failpoint` does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process here when the environment names this place; else return at once."""
    wanted = os.environ.get("SQLFLOW_FAILPOINT")
    if not wanted:
        return
    place, action, *times = wanted.split(":")
    if place != name or action != "kill":
        return
    _passed[name] += 1
    if _passed[name] == int(times[0] if times else 1):
        os.kill(os.getpid(), signal.SIGKILL)
