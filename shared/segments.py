"""The number of segments in which an SMS is sent, and their encoding (3GPP TS 23.038 and 23.040).

A text in the GSM-7 alphabet has up to 160 units in a single segment, or 153 in each of several; any other
text is encoded in UCS-2, with 70 or 67. A character that takes two units, by an escape or as a surrogate
pair, is never split.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_ESCAPED = frozenset("\f^{}\\[~]|€")
_GSM_7 = _BASIC | _ESCAPED
_LAST_OF_BASIC_PLANE = "\uffff"


class Encoding(StrEnum):
    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


@dataclass(frozen=True, slots=True)
class Segments:
    encoding: Encoding
    count: int


@lru_cache(maxsize=64)  # a response asks for the number and for the encoding
def segments_of(text: str) -> Segments:
    """Return the encoding and the number of segments of a text; an empty text is one segment as well."""
    if _GSM_7.issuperset(text):
        units = [2 if character in _ESCAPED else 1 for character in text]
        return Segments(Encoding.GSM_7, _count(units, alone=160, each=153))
    units = [2 if character > _LAST_OF_BASIC_PLANE else 1 for character in text]
    return Segments(Encoding.UCS_2, _count(units, alone=70, each=67))


def _count(units: list[int], *, alone: int, each: int) -> int:
    """Count the segments of characters of some sizes: one of up to `alone` units, or several of `each`."""
    if sum(units) <= alone:
        return 1
    count, used = 1, 0
    for size in units:
        if used + size > each:
            count, used = count + 1, 0
        used += size
    return count
