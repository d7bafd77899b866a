"""How many segments a text message takes: GSM 03.38 septets, or else UTF-16 units."""

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_ESCAPED = frozenset("\f^{}\\[~]|€")


def segment_count(text: str) -> int:
    """At least 1, also for an empty text."""
    if set(text) <= _BASIC | _ESCAPED:
        widths = [2 if character in _ESCAPED else 1 for character in text]
        alone, joined = 160, 153
    else:
        widths = [2 if ord(character) > 0xFFFF else 1 for character in text]  # noqa: PLR2004 - the end of UTF-16's single units
        alone, joined = 70, 67
    return 1 if sum(widths) <= alone else _packed(widths, joined)


def _packed(widths: list[int], room: int) -> int:
    """Segments of so much room each, where no character may lie across a border."""
    segments, left = 1, room
    for width in widths:
        if width > left:
            segments, left = segments + 1, room
        left -= width
    return segments
