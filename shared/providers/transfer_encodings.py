"""Decodes the transfer encodings of e-mails (RFC 2045, 6), even if they are damaged."""

import re
from binascii import Error, a2b_base64, a2b_uu
from quopri import decodestring

_BASE_64_VALUE = re.compile(rb"([^=]+)(=*)")
_NOT_BASE_64 = re.compile(rb"[^A-Za-z0-9+/]+")
_BLANKS = b" \t\r\n\f\v"

_MAX_VALUES = 500_000
"""The maximum number of padded values in a text, each of which takes time. Programs pad each line at most."""

_BLANKS_AFTER_ESCAPE = re.compile(rb"=[ \t]+(?=\r?\n)")

_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\r\n]*\r?\n", re.MULTILINE)
_UU_END = re.compile(rb"^end[ \t\r]*$", re.MULTILINE)


def from_base64(text: bytes) -> tuple[bytes, bool]:
    """Decode base64; characters that are not part of it are skipped.

    Text after the padding is decoded as well, since some programs encode the content piece by piece. If it is
    not complete base64, such as the footer that a mailing list has added, it is left out.

    Returns:
        The bytes, and whether all of the text was decoded.
    """
    decoded = bytearray()
    is_whole = True
    for number, value in enumerate(_BASE_64_VALUE.finditer(text.translate(None, delete=_BLANKS))):
        written, padding = value.groups()
        digits = _NOT_BASE_64.sub(b"", written)
        if len(digits) < len(written) or len(digits) % 4 == 1 or (len(digits) + len(padding)) % 4:
            is_whole = False
            if number:
                break
        if number == _MAX_VALUES:
            is_whole = False
            break
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        decoded += a2b_base64(digits + b"=" * (-len(digits) % 4))
    return bytes(decoded), is_whole


def from_quoted_printable(text: bytes, *, is_header: bool = False) -> bytes:
    """Decode quoted-printable; equals signs that do not begin an escape sequence are kept.

    Args:
        text: what to decode.
        is_header: whether it is in an encoded word (RFC 2047, 4.2), in which `_` is a space.
    """
    text = _BLANKS_AFTER_ESCAPE.sub(b"=", text)
    # The standard library would drop an equals sign before another one, and the rest of a line after `=\r`.
    for _ in range(2):
        text = text.replace(b"==", b"=3D=")
    text = text.replace(b"=\r\n", b"=\n").replace(b"=\r", b"=3D\r")
    return decodestring(text, header=is_header)


def from_uuencode(text: bytes) -> tuple[bytes, bool]:
    """Decode the first file in a text; lines that are invalid are left out.

    Returns:
        The bytes, and whether the text contains nothing else. A text without a file is returned as it is.
    """
    begin = _UU_BEGIN.search(text)
    if begin is None:
        return text, True
    end = _UU_END.search(text, begin.end())
    outside = text[: begin.start()] + (text[end.end() :] if end else b"")
    is_whole = end is not None and not outside.strip()
    decoded = bytearray()
    for line in text[begin.end() : end.start() if end else len(text)].split(b"\n"):
        line = line.rstrip(b"\r")  # noqa: PLW2901 - the same line
        if line.strip() in (b"", b"`"):
            continue
        try:
            content = a2b_uu(line)
        except Error:
            is_whole = False
        else:
            # Characters that are missing at the end of a line are read as zeros.
            is_whole &= (len(line) - 1) * 6 >= len(content) * 8
            decoded += content
    return bytes(decoded), is_whole
