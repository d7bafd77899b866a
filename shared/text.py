"""The characters that a text may contain, and functions that replace all others."""

import re

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SURROGATES = r"\ud800-\udfff"
_BREAKS = r"\t\n\r"

# Lone surrogates are not characters, and cannot be written as UTF-8.
NOT_TEXT = re.compile(f"[{_CONTROLS}{_SURROGATES}]")
NOT_A_LINE = re.compile(f"[{_CONTROLS}{_SURROGATES}{_BREAKS}]")

TEXT_PATTERN = f"^[^{_CONTROLS}]*$"
LINE_PATTERN = f"^[^{_CONTROLS}{_BREAKS}]*$"


def clean_text(text: str) -> str:
    """Replace control characters and lone surrogates."""
    return NOT_TEXT.sub("\ufffd", text)


def single_line(text: str, *, limit: int) -> str:
    """Return a cleaned text on a single line, cut to `limit` characters."""
    return " ".join(clean_text(text[: limit * 2]).split())[:limit]
