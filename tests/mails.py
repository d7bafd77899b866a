"""E-mails as SendGrid posts them: in many character sets, and in the shapes that mail programs give them."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from quopri import encodestring

from tests.webhooks import MAIL

TEXTS = {
    "ibm866": "Привет, мир",
    "iso-8859-2": "Zażółć gęślą jaźń",
    "iso-8859-3": "Ĉu vi parolas Esperanton?",
    "iso-8859-4": "Tere, kuidas läheb? Šķiet",
    "iso-8859-5": "Привет, мир",
    "iso-8859-6": "مرحبا بالعالم",
    "iso-8859-7": "Καλημέρα κόσμε",
    "iso-8859-8": "שלום עולם",
    "iso-8859-8-i": "שלום עולם",
    "iso-8859-10": "Góðan dag, ŋ",
    "iso-8859-13": "Labą dieną, Ģ",
    "iso-8859-14": "Dydd da, ŵ",
    "iso-8859-15": "Ça coûte 5 €, Œuvre",
    "iso-8859-16": "Bună ziua, ț",
    "koi8-r": "Привет, мир",
    "koi8-u": "Привіт, світе ї",
    "macintosh": "Grüße, naïve",
    "windows-874": "สวัสดี “ชาวโลก”",
    "windows-1250": "Příliš žluťoučký kůň",
    "windows-1251": "Съешь ещё этих мягких булок",
    "windows-1252": "Grüße, “naïve” €",
    "windows-1253": "Καλημέρα €",
    "windows-1254": "“İstanbul” çşğ €",
    "windows-1255": "שלום ₪",
    "windows-1256": "مرحبا پ",
    "windows-1257": "Labas rytas, šiandien",
    "windows-1258": "Xin chào đồng",
    "x-mac-cyrillic": "Привет, мир",
    "gbk": "朱镕基 囧 御見積",
    "gb18030": "𠀀 朱镕基",
    "big5": "鹹 啲嘢 繁體中文",
    "euc-jp": "こんにちは 日本語",
    "iso-2022-jp": "こんにちは 日本語",
    "shift_jis": "①㈱髙﨑 カナ",
    "euc-kr": "똠방각하 펲시맨",
    "utf-8": "Grüße 🙂",
    "utf-16le": "Grüße 日本",
    "utf-16be": "Grüße 日本",
}
"""A text in each encoding of the WHATWG Encoding Standard, by its name."""

CODECS = {
    "iso-8859-8-i": "iso8859-8",
    "macintosh": "mac-roman",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "shift_jis": "cp932",
    "windows-1258": "cp1258",
}

Fields = Mapping[str, str | bytes]


def encoded(name: str) -> bytes:
    """Return the text of an encoding of the standard in its bytes."""
    return TEXTS[name].encode(CODECS.get(name, name), errors="ignore")


def decoded(name: str) -> str:
    return encoded(name).decode(CODECS.get(name, name))


def parsed_mails() -> Iterator[tuple[Fields, str]]:
    """Yield posts of parsed e-mails in each encoding, and the texts in them."""
    for name in TEXTS:
        charsets = {"text": name, "subject": "UTF-8"}
        yield {**MAIL, "html": "", "text": encoded(name), "charsets": json.dumps(charsets)}, decoded(name)


def raw_mails() -> Iterator[tuple[Fields, str]]:
    """Yield posts of raw e-mails in each encoding, transfer encoding and shape, and the texts in them."""
    for name in TEXTS:
        content = encoded(name)
        bodies = {"base64": b64encode(content), "quoted-printable": encodestring(content)}
        if not name.startswith("utf-16"):
            bodies["8bit"] = content
        for encoding, body in bodies.items():
            header = (
                f"Content-Type: text/plain; charset={name}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            )
            for shape in (plain, mixed, nested, forwarded, unterminated):
                yield post_of(shape(header.encode() + body)), decoded(name)


def post_of(raw: bytes) -> Fields:
    head = b"From: Ann <ann@example.com>\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n"
    kept = {name: MAIL[name] for name in ("from", "to", "subject", "envelope", "SPF")}
    return {**kept, "email": head + raw}


def plain(part: bytes) -> bytes:
    return part


def mixed(*parts: bytes, boundary: str = "=_a/b c") -> bytes:
    delimiter = f"\r\n--{boundary}".encode()
    body = b"".join(delimiter + b"\r\n" + part for part in parts)
    return (
        f'Content-Type: multipart/mixed;\r\n boundary="{boundary}"\r\n\r\n'.encode()
        + body
        + delimiter
        + b"--\r\n"
    )


def nested(part: bytes) -> bytes:
    return mixed(mixed(part, PDF, boundary="ab"), PDF, boundary="a")


def forwarded(part: bytes) -> bytes:
    return mixed(part, b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nAnother text.")


def unterminated(part: bytes) -> bytes:
    return mixed(PDF, part).removesuffix(b"\r\n--=_a/b c--\r\n")


PDF = b'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n\r\n%PDF'


NOTHING = ""
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n\r\nThe text."
_TOO_DEEP = 40


def _deep(levels: int) -> bytes:
    part = _TEXT
    for level in range(levels):
        part = mixed(part, boundary=f"level {level}.")
    return part


MALFORMED: Mapping[str, tuple[bytes, str]] = {
    "no headers": (b"\r\nThe text.", "The text."),
    "no blank line": (b"X-Last: 1\r\nThe text.", "The text."),
    "only line feeds": (_TEXT.replace(b"\r\n", b"\n"), "The text."),
    "mixed-case headers": (b"cOnTeNt-TyPe: TEXT/Plain; CHARSET=UTF-8\r\n\r\nGr\xc3\xbc\xc3\x9fe", "Grüße"),
    "a line that is no header": (b"not a header\r\n" + _TEXT, "The text."),
    "no body": (b"Content-Type: text/plain\r\n\r\n", NOTHING),
    "an unknown charset": (b"Content-Type: text/plain; charset=x-martian\r\n\r\nThe text.", "The text."),
    "two charsets": (
        b"Content-Type: text/plain; charset=utf-8; charset=big5\r\n\r\nGr\xc3\xbc\xc3\x9fe",
        "Grüße",
    ),
    "UTF-8 as ASCII": (b"Content-Type: text/plain; charset=us-ascii\r\n\r\nGr\xc3\xbc\xc3\x9fe", "Grüße"),
    "Latin-1 as UTF-8": (b"Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xfc\xdfe", "Grüße"),
    "a charset in the form of RFC 2231": (
        b"Content-Type: text/plain; charset*=us-ascii'en'utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe",
        "Grüße",
    ),
    "base64 with other characters": (
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nVGhl*IHR\r\n leHQu",
        "The text.",
    ),
    "base64 that is cut": (
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nVGhlIHRleHQuI",
        "The text.",
    ),
    "quoted-printable that is none": (
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n100=ZZ=",
        "100=ZZ",
    ),
    "an unknown transfer encoding": (b"Content-Transfer-Encoding: 9bit\r\n" + _TEXT, "The text."),
    "a boundary that is missing": (b"Content-Type: multipart/mixed\r\n\r\nThe text.", "The text."),
    "a boundary that does not occur": (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\nThe text.",
        "The text.",
    ),
    "an empty part first": (mixed(b"", _TEXT), "The text."),
    "nested parts": (_deep(12), "The text."),
    "parts that are nested too deeply": (_deep(_TOO_DEEP), NOTHING),
    "the same boundary twice": (mixed(mixed(_TEXT)), "The text."),
    "an attachment before the text": (mixed(PDF, _TEXT), "The text."),
    "a name in parts": (
        mixed(
            b"Content-Disposition: attachment; filename*0*=utf-8''%E4%B8; filename*1*=%AD.pdf\r\n\r\n%PDF",
            _TEXT,
        ),
        "The text.",
    ),
    "a delivery report": (
        mixed(_TEXT, b"Content-Type: message/delivery-status\r\n\r\nAction: failed").replace(
            b"mixed", b"report"
        ),
        "The text.",
    ),
    "a calendar": (mixed(_TEXT, b"Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR"), "The text."),
    "signed": (
        mixed(_TEXT, b"Content-Type: application/pkcs7-signature\r\n\r\n0").replace(b"mixed", b"signed"),
        "The text.",
    ),
    "encrypted": (b"Content-Type: application/pkcs7-mime\r\n\r\n\x00\x01", NOTHING),
    "only an image": (b"Content-Type: image/png\r\n\r\n\x89PNG", NOTHING),
    "a type that is none": (b"Content-Type: ;;=\r\n\r\nThe text.", "The text."),
    "control characters": (b"Content-Type: text/plain\r\n\r\nThe\0 text.", "The\ufffd text."),
}
"""Bodies of raw e-mails as bad programs write them, with their headers about the content, and the texts."""


def malformed_mails() -> Iterator[tuple[Fields, str]]:
    """Yield posts of raw e-mails that are malformed or unusual, and the texts in them."""
    for raw, text in MALFORMED.values():
        yield post_of(raw), text
