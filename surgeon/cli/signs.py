"""Print on terminals whose encoding lacks signs such as − and …: in ASCII, instead of raising an exception."""

from __future__ import annotations

import codecs
import unicodedata
from io import TextIOWrapper
from typing import TextIO

HANDLER = "surgeon-ascii"
ASCII = {
    "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "←": "<-", "·": "-", "•": "*", "×": "x", "±": "+-", "≥": ">=",
    "≤": "<=", "≠": "!=", "≈": "~", "λ": "lambda", "σ": "sigma", "√": "sqrt", "’": "'", "‘": "'", "“": '"', "”": '"',
    "✓": "ok", "✗": "x", "─": "-", "━": "-", "│": "|", "┃": "|", "├": "|", "└": "`", "╴": "-", "█": "#", "░": ".",
}  # fmt: skip
"""How the signs of reports are written in ASCII."""


def ascii_form(sign: str) -> str:
    """Write one character in ASCII: by the table, without its accents, or as an escape."""
    if sign in ASCII:
        return ASCII[sign]
    plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return plain or sign.encode("ascii", "backslashreplace").decode()


def replace_signs(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks; an error handler as :func:`codecs.register_error` takes it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ascii_form(sign) for sign in error.object[error.start : error.end]), error.end


def takes_unicode(stream: TextIO) -> bool:
    """Return whether a stream's encoding has every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def write_what_fits(*streams: TextIO) -> None:
    """Let streams replace the characters that their encoding lacks; in UTF-8 these are lone surrogates only."""
    codecs.register_error(HANDLER, replace_signs)
    for stream in streams:
        if isinstance(stream, TextIOWrapper) and (stream.errors == "strict" or not takes_unicode(stream)):
            stream.reconfigure(errors=HANDLER)
