"""The number of segments of a text message: in GSM 03.38 septets if possible, in UTF-16 units otherwise."""

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")
_MAX_CODE_UNIT = 0xFFFF


def segment_count(text: str) -> int:
    """Return the number of segments, which is 1 for an empty text."""
    if set(text) <= _BASIC | _EXTENDED:
        widths = [2 if character in _EXTENDED else 1 for character in text]
        single, part = 160, 153
    else:
        widths = [2 if ord(character) > _MAX_CODE_UNIT else 1 for character in text]
        single, part = 70, 67
    return 1 if sum(widths) <= single else _count_parts(widths, part)


def _count_parts(widths: list[int], size: int) -> int:
    """Return the number of parts of a size, where no character is split between two parts."""
    parts, left = 1, size
    for width in widths:
        if width > left:
            parts, left = parts + 1, size
        left -= width
    return parts
