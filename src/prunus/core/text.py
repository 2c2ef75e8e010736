"""How is a name that somebody else chose shown, without letting it steer the screen?

A name may hold terminal escapes, line ends, or marks that turn the reading direction. They are shown as what they are.
"""

from __future__ import annotations

import unicodedata

__all__ = ["plain", "shown"]

_STEERS = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories that a reader doesn't see and a screen obeys: controls, formats, surrogates, private use, separators."""


def plain(text: str) -> str:
    """Return ``text`` with what would steer the screen written as an escape.

    >>> plain("a\\x1b[2Jb\\u202egpj.exe"), plain("Ærø 日本")
    ('a\\\\x1b[2Jb\\\\u202egpj.exe', 'Ærø 日本')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in _STEERS else letter for letter in text)


def shown(value: object, most: int = 80) -> str:
    """Return a value as Python would write it, on one line of at most ``most`` letters that steers nothing.

    >>> shown("x" * 9, most=6), shown("a\\n")
    ("'xxxx…", "'a\\\\n'")
    """
    text = plain(repr(value))
    return text if len(text) <= most else text[: most - 1] + "…"


def _escaped(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
