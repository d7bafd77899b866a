"""Decodes text whose character set is named wrongly, by an alias, or not at all, as in e-mails."""

import codecs
import re
from dataclasses import dataclass

import webencodings

_UTF_8 = "utf-8"
_WINDOWS_1252 = "cp1252"

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:()+-]{0,39}")
_CODE_PAGE = re.compile(r"(?:x-)?(?:cp|ibm|win|windows|ms)[-_]?(\d{3,5})", flags=re.IGNORECASE)

_WITHOUT_DECODER = {"replacement", "x-user-defined"}
"""Encodings of the standard that stand for any text."""

_NOT_OF_TEXTS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Python's codecs that are not character sets."""

_MIN_SEQUENCES = 3
"""As many sequences of UTF-8, and no other bytes, do not occur by chance."""

_LATIN = {
    *("cp1250", "cp1252", "cp1254", "cp1257", "mac-roman", "cp437", "cp850", "cp858"),
    *(f"iso8859-{number}" for number in (2, 3, 4, 9, 10, 13, 14, 15, 16)),
}
"""Character sets in which a sequence of UTF-8 is two or more odd signs, such as Ã©."""

_NOT_LEADING = bytes(range(0xC0))
"""Bytes that do not begin a sequence of UTF-8."""

_CONTINUING = bytes(range(0x80, 0xC0))

_PRINTABLE = range(0x21, 0x7F)
_TO_EIGHT_BITS = bytes(byte | 0x80 if byte in _PRINTABLE else byte for byte in range(256))
_SEVEN_BIT_JAPANESE = re.compile(rb"\x1b(\$[@B]|\$\(D|\([BJIH])([^\x1b]*)")
_PREFIXES = {b"(I": b"\x8e", b"$(D": b"\x8f"}
_CHARACTERS = {b"(I": re.compile(rb"[\x21-\x7e]"), b"$(D": re.compile(rb"[\x21-\x7e]{2}")}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text; `is_lossy` if some of its bytes had to be guessed or replaced."""

    text: str
    is_lossy: bool = False


def decode(content: bytes, label: str | None = None) -> Decoded:
    """Decode a text.

    Labels are read as browsers read them (WHATWG Encoding Standard), or else as Python does. A text that
    is evidently UTF-8 is read as such, whatever its label. A text that does not match its label is read as
    UTF-8, or else as windows-1252 if the label is missing, unknown or UTF-8.

    Args:
        content: the bytes.
        label: the name of the character set, if there is one.
    """
    for bom, codec in _BOMS:
        if content.startswith(bom):
            return _decode(content[len(bom) :], codec) or _replace(content[len(bom) :], codec)
    codec = _codec_of(label or "")
    in_utf_8 = _decode(content, _UTF_8)
    if in_utf_8 and _is_evident(content, codec):
        return in_utf_8
    return (codec and _decode(content, codec)) or in_utf_8 or _guess(content, codec)


def beginning_of(content: bytes, size: int) -> bytes:
    """Return about as many bytes from the beginning of a text, without half a line or half a character."""
    if len(content) <= size:
        return content
    if end := content.rfind(b"\n", size // 2, size) + 1:
        return content[:end]
    sequence = content[size - 3 : size].lstrip(_CONTINUING)
    return content[: size - len(sequence)] if sequence and content[size] in _CONTINUING else content[:size]


def _codec_of(label: str) -> str:
    """Return the name of Python's codec, or an empty text if there is none."""
    label = label.partition(";")[0].strip(" \t\r\n\"'")
    # Python remembers every name that it has looked up, and e-mails may name anything.
    if not _LABEL.fullmatch(label):
        return ""
    encoding = webencodings.lookup(label)
    if encoding and encoding.name not in _WITHOUT_DECODER:
        return encoding.codec_info.name
    if page := _CODE_PAGE.fullmatch(label):
        label = f"cp{page[1]}"
    try:
        codec = codecs.lookup(label.lower().removeprefix("x-"))
    except LookupError:
        return ""
    is_text = codec._is_text_encoding  # noqa: SLF001 - bytes.decode() looks at it as well
    return codec.name if is_text and codec.name not in _NOT_OF_TEXTS else ""


def _is_evident(content: bytes, codec: str) -> bool:
    """Return whether a text that can be read as UTF-8 is in UTF-8 despite its label."""
    if codec in ("", "ascii", _UTF_8):
        return True
    if codec.startswith(("utf-16", "utf-32")):
        return b"\0" not in content
    sequences = len(content.translate(None, delete=_NOT_LEADING))
    return sequences >= (1 if codec in _LATIN else _MIN_SEQUENCES)


def _decode(content: bytes, codec: str) -> Decoded | None:
    try:
        if codec == "iso2022_jp":
            content, codec = _eight_bit_japanese(content), "euc_jp"
        text = content.decode(codec, errors=_NEC if codec == "euc_jp" else "strict")
        text.encode()  # UTF-7 can spell lone surrogates
    except (LookupError, ValueError):
        return None
    return Decoded(text)


def _guess(content: bytes, codec: str) -> Decoded:
    if codec in ("", "ascii", _UTF_8):
        damaged = _replace(content, _UTF_8)
        is_utf_8 = any(char > "\x7f" and char != "\ufffd" for char in damaged.text)
        return damaged if is_utf_8 else _replace(content, _WINDOWS_1252)
    return _replace(content, codec)


def _replace(content: bytes, codec: str) -> Decoded:
    try:
        text = content.decode(codec, errors="replace")
    except (LookupError, ValueError):
        text = content.decode(errors="replace")
    return Decoded(text.encode(errors="replace").decode(), is_lossy=True)


def _eight_bit_japanese(content: bytes) -> bytes:
    """Return ISO-2022-JP as EUC-JP.

    Python's own codec knows neither the characters of NEC nor half-width katakana, which mail programs use.
    """

    def convert(found: re.Match[bytes]) -> bytes:
        set_, chars = found.groups()
        if prefix := _PREFIXES.get(set_):
            chars = _CHARACTERS[set_].sub(lambda char: prefix + char[0].translate(_TO_EIGHT_BITS), chars)
        return chars if set_[:1] == b"(" else chars.translate(_TO_EIGHT_BITS)

    if not content.isascii():
        raise ValueError("is not ISO-2022-JP")
    return _SEVEN_BIT_JAPANESE.sub(convert, content)


def _read_nec_character(error: UnicodeError) -> tuple[str, int]:
    """Decode a character of EUC-JP that only the extension of NEC and Microsoft has (an error handler)."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    pair = error.object[error.start : error.start + 2]
    if len(pair) < 2 or min(pair) < 0xA1:  # noqa: PLR2004 - a pair, both of whose bytes have the highest bit
        raise error
    row, cell = pair[0] - 0xA1, pair[1] - 0xA1
    lead = row // 2 + (0x81 if row < 62 else 0xC1)  # noqa: PLR2004 - Shift_JIS leaves a gap for half-width katakana
    trail = cell + 0x9F if row % 2 else cell + 0x40 + (cell >= 63)  # noqa: PLR2004 - and one at 0x7F
    return bytes([lead, trail]).decode("cp932"), error.start + 2


_NEC = "nec_characters"
codecs.register_error(_NEC, _read_nec_character)
