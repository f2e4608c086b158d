"""Text that could not be taken in → the names that it may have made, so that no error follows from another."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field

_WORD = re.compile(r"[^\W\d]\w*")
_VARIABLE = re.compile(r"\$\{[^}\n]*\}")
_INCLUDE = re.compile(r"\bINCLUDE\b", re.IGNORECASE)
# Tables whose names are not in the text: those of all streams, and those that a variable names.
_UNNAMED = re.compile(r"\bLOAD\s+\*|\b(?:TABLE|VIEW|LOAD|SOURCE)\s+[^\s;]*\$\{", re.IGNORECASE)
_FIRST_WORDS = ("SOURCE", "LOAD", "CREATE", "EXPORT", "SET", "INCLUDE", "IF")


@dataclass
class Unread:
    """What of a file could not be taken in.

    `any_table` says that tables or sources may be made there whose names are not known,
    `anything` that variables may be set as well.
    """

    any_table: bool = False
    anything: bool = False
    _words: dict[str, set[str]] = field(default_factory=dict)  # by the prefix that INCLUDE gives them

    def add(self, text: str, prefix: str = "") -> None:
        """Note a text whose statements could not be taken in."""
        bare = _VARIABLE.sub("${", text)
        words = [word.casefold() for word in _WORD.findall(bare)]
        self._words.setdefault(prefix.casefold(), set()).update(words)
        first = words[0].upper() if words else ""
        meant = difflib.get_close_matches(first, _FIRST_WORDS, n=1) if len(first) < 30 else []
        self.anything = self.anything or meant == ["INCLUDE"] or _INCLUDE.search(bare) is not None
        self.any_table = self.any_table or self.anything or _UNNAMED.search(bare) is not None

    def may_make(self, name: str) -> bool:
        """Whether a table or source of this name may be made there."""
        return self.any_table or self._mentions(name)

    def may_set(self, name: str) -> bool:
        """Whether a variable of this name may be set there."""
        return self.anything or self._mentions(name)

    def _mentions(self, name: str) -> bool:
        folded = name.casefold()
        return any(
            words.issuperset(_WORD.findall(folded.removeprefix(prefix)))
            for prefix, words in self._words.items()
            if folded.startswith(prefix)
        )
