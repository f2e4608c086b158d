"""A string as written ↔ its value: quotes and escapes undone, and put back.

`${…}` is left as it is, for variables are filled in later; a quote inside one needs no escape.
"""

from __future__ import annotations

import re

from sqlflow_dagster.language.tokens import VARIABLE

_ESCAPES = r"""
    (?P<surrogates>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
  | (?P<unicode>\\u[0-9a-fA-F]{4})
  | (?P<letter>\\.)
"""
_ESCAPE = re.compile(_ESCAPES, re.VERBOSE | re.DOTALL)
_PART = re.compile(rf'\$\$\{{|(?P<variable>{VARIABLE})|(?P<doubled>"")|{_ESCAPES}', re.VERBOSE | re.DOTALL)
_SINGLE = re.compile(rf"(\$\$\{{|{VARIABLE})|''")
_KEPT = re.compile(rf"(\$\$\{{|{VARIABLE})")
_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]')
_MALFORMED = re.compile(rf"\$\$\{{|{VARIABLE}|(?P<bad>\$\{{[^}}\n]{{0,40}}\}}?)")

_BY_LETTER = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"', "/": "/", "'": "'"}
_LETTERS = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f", "\\": "\\", '"': '"'}


class BadEscape(ValueError):
    """A backslash escape that means nothing; its text is the escape as written."""


def unquote(written: str) -> str:
    r"""Return the value of a string in single or double quotes. Raises BadEscape.

    Inside single quotes only `''` is special. Inside double quotes `""` is, and `\n`, `\"`,
    `\\`, `\u00e4` and the other escapes of JSON.
    """
    if written[0] == "'":
        return _SINGLE.sub(lambda match: match.group(1) or "'", written[1:-1])
    return _PART.sub(_undone, written[1:-1])


def quoted(value: str) -> str:
    """Return the value as a JSON string, which is also a string of our clauses."""
    plain_and_variables = _KEPT.split(value)
    for index, part in enumerate(plain_and_variables):
        inside = index % 2 == 1
        plain_and_variables[index] = part.replace("\\", "\\\\") if inside else _SPECIAL.sub(_done, part)
    return f'"{"".join(plain_and_variables)}"'


def malformed(text: str) -> str | None:
    """Return the first `${` of a text that begins no variable, with what follows, else None."""
    if "${" not in text:
        return None
    return next((match.group("bad") for match in _MALFORMED.finditer(text) if match.group("bad")), None)


def _undone(match: re.Match[str]) -> str:
    part = match.group()
    match match.lastgroup:
        case "variable":
            return _ESCAPE.sub(_undone, part)
        case "doubled":
            return '"'
        case "surrogates":
            return bytes.fromhex(part[2:6] + part[8:12]).decode("utf-16-be")
        case "unicode":
            code = int(part.removeprefix("\\u"), 16)
            if 0xD800 <= code <= 0xDFFF:
                raise BadEscape(part)
            return chr(code)
        case "letter":
            if part[1] not in _BY_LETTER:
                raise BadEscape(part)
            return _BY_LETTER[part[1]]
    return part


def _done(match: re.Match[str]) -> str:
    char = match.group()
    return f"\\{_LETTERS[char]}" if char in _LETTERS else f"\\u{ord(char):04x}"
