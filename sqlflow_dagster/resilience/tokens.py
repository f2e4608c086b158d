"""An account's access token → one that works: renewed once for all threads and processes, stored whole.

Vendors that rotate refresh tokens take each one once: two who renew at the same time lock the account
out. So who finds a token stale takes the lock, looks whether another has renewed it meanwhile, and
only then asks the vendor; the answer is on the disk before anyone uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.failpoints import failpoint

Tokens = Mapping[str, str]


class TokenFile:
    """The tokens of one account, in one file that only its owner may read."""

    def __init__(self, folder: Path, name: str) -> None:
        """Keep where the file is: one in `folder` for each `name`, which holds no secret."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        self.path = folder / f"{digest}.json"

    def stored(self) -> Tokens | None:
        """Return what was stored last, None where nothing was.

        Raises ProjectError for a file that is not one of ours.
        """
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ProjectError(f"{self.path}: it holds no tokens; delete it, and give the source new ones")
        return found

    def renewed(self, stale: SecretStr | None, renew: Callable[[Tokens | None], Tokens]) -> Tokens:
        """Return tokens whose `access_token` is not the `stale` one, and store them.

        `renew` is given what is stored, asks the vendor, and returns all that is to be kept; it is
        called by one caller at a time, and not at all where another has renewed them meanwhile.

        Raises what `renew` raises; then what was stored is as it was.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.stored()
            if before and (stale is None or before.get("access_token") != stale.get_secret_value()):
                return before
            after = renew(before)
            failpoint("after_token_renewed")
            self._store({**(before or {}), **after})
        finally:
            os.close(lock)
        return {**(before or {}), **after}

    def _store(self, tokens: Tokens) -> None:
        """Put the file in its place whole, on the disk, before anyone relies on it."""
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(dict(tokens), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
