"""A glob → the ones that its `{a,b}` stand for; one of object keys → the regular expression that it means."""

from __future__ import annotations

import re
from functools import cache

_PART = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|.", re.DOTALL)

_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def alternatives(glob: str) -> tuple[str, ...]:
    """Return the globs that one with `{a,b}` stands for, as in a shell; they may be nested, and one may be empty."""
    found = _ALTERNATIVES.search(glob)
    if found is None:
        return (glob,)
    head, tail = glob[: found.start()], glob[found.end() :]
    globs = [item for part in found[1].split(",") for item in alternatives(head + part + tail)]
    return tuple(dict.fromkeys(globs))


@cache
def pattern(glob: str) -> re.Pattern[str]:
    """Return what a whole key must match: `*` and `?` stay in a folder, `**` does not, `{a,b}` is either."""
    meant = ("".join(map(_translated, _PART.findall(item))) for item in alternatives(glob))
    return re.compile("|".join(meant), re.DOTALL)


def _translated(part: str) -> str:
    if part in _WILD:
        return _WILD[part]
    if len(part) > 2 and part[0] == "[":
        inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
        inside = f"^{inside[1:]}" if inside.startswith("!") else inside
        return f"(?!/)[{inside}]"
    if len(part) > 1 and part[0] == "{":
        # One without a choice; what is in it is a glob itself.
        return pattern(part[1:-1]).pattern
    return re.escape(part)
