"""A glob of object keys → the regular expression that it means."""

from __future__ import annotations

import re
from functools import cache

_PART = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|.", re.DOTALL)

_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@cache
def pattern(glob: str) -> re.Pattern[str]:
    """Return what a whole key must match: `*` and `?` stay in a folder, `**` does not, `{a,b}` is either."""
    return re.compile("".join(map(_translated, _PART.findall(glob))), re.DOTALL)


def _translated(part: str) -> str:
    if part in _WILD:
        return _WILD[part]
    if len(part) > 2 and part[0] == "[":
        inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
        inside = f"^{inside[1:]}" if inside.startswith("!") else inside
        return f"(?!/)[{inside}]"
    if len(part) > 1 and part[0] == "{":
        # An alternative is a glob itself.
        return f"(?:{'|'.join(pattern(item).pattern for item in part[1:-1].split(','))})"
    return re.escape(part)
