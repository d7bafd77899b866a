"""Texts in character sets that are named by any label, wrongly, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webencodings.labels import LABELS

from shared.providers.charsets import Decoded, beginning_of, decode
from tests.mails import CODECS, TEXTS


@pytest.mark.parametrize("label", [label for label, name in LABELS.items() if name in TEXTS])
def test_every_label_of_the_standard_is_known(label: str) -> None:
    name = LABELS[label]
    text = TEXTS[name].encode(CODECS.get(name, name), errors="ignore").decode(CODECS.get(name, name))

    for written in (label, label.upper(), f'"{label}"', f" {label}; format=flowed"):
        assert decode(text.encode(CODECS.get(name, name)), written) == Decoded(text)


def test_every_encoding_of_the_standard_has_a_text() -> None:
    assert set(LABELS.values()) - set(TEXTS) == {"replacement", "x-user-defined"}


@pytest.mark.parametrize(
    ("text", "codec", "label"),
    [
        ("Grüße", "mac-roman", "x-mac-roman"),
        ("naïve", "cp850", "cp-850"),
        ("naïve", "cp850", "ibm850"),
        ("Привет", "cp1251", "win-1251"),
        ("Привет", "cp1251", "windows1251"),
        ("안녕하세요", "iso2022_kr", "iso-2022-kr"),
        ("中文", "hz", "hz-gb-2312"),
        ("Grüße", "utf-7", "utf-7"),
        ("Grüße", "utf-8", "UTF8"),
        ("日本①", "cp932", "windows-31j"),
        ("日本", "cp932", "x-sjis"),
        ("中文", "utf-16", "utf-16"),
        ("中文", "utf-16-be", "utf-16be"),
    ],
)
def test_labels_beside_the_standard(text: str, codec: str, label: str) -> None:
    assert decode(text.encode(codec), label) == Decoded(text)


@pytest.mark.parametrize(
    "label", ["us-ascii", "iso-8859-1", "windows-1252", "iso-8859-2", "utf-7", "x-unknown"]
)
@pytest.mark.parametrize("text", ["Test ññ Grüße", "Dzień dobry", "Καλημέρα", "日本語"])
def test_utf_8_is_recognised_despite_its_label(text: str, label: str) -> None:
    assert decode(text.encode(), label) == Decoded(text)


@pytest.mark.parametrize(
    "label", ["windows-1251", "koi8-r", "gb2312", "shift_jis", "iso-2022-jp", "utf-16le"]
)
@pytest.mark.parametrize("text", ["Привет, мир", "你好,世界", "日本語"])
def test_utf_8_is_recognised_despite_the_label_of_another_script(text: str, label: str) -> None:
    assert decode(text.encode(), label) == Decoded(text)


@pytest.mark.parametrize(
    "label", [None, "", "unknown-8bit", "x-unknown", "utf-8", "a\0b", "é" * 999, "zlib", "idna"]
)
def test_western_text_without_a_useful_label_is_read_as_windows_1252(label: str | None) -> None:
    assert decode("Grüße".encode("cp1252"), label) == Decoded("Grüße", is_lossy=True)


def test_damaged_utf_8_keeps_what_can_be_read() -> None:
    assert decode("Grüße ".encode() + b"\xff", "utf-8") == Decoded("Grüße \ufffd", is_lossy=True)


@pytest.mark.parametrize("bom", [("utf-8-sig", "iso-8859-1"), ("utf-16", "utf-8")])
def test_a_byte_order_mark_counts_more_than_the_label(bom: tuple[str, str]) -> None:
    codec, label = bom
    assert decode("Grüße".encode(codec), label) == Decoded("Grüße")


@pytest.mark.parametrize(
    ("content", "label", "text"),
    [
        (b"\x1b$B-!-j\x1b(B", "iso-2022-jp", "①㈱"),
        (b"\xad\xa1\xad\xea", "euc-jp", "①㈱"),
        (b"a \x1b(I12\x1b(B b", "iso-2022-jp", "a ｱｲ b"),
        (b'\x1b$B$"\x1b(B\n\x1b$B$$\x1b(B', "iso-2022-jp", "あ\nい"),
        (b"\x1b(J~\x1b(B", "iso-2022-jp", "~"),
    ],
)
def test_japanese_as_mail_programs_write_it(content: bytes, label: str, text: str) -> None:
    assert decode(content, label) == Decoded(text)


LETTERS = {
    "windows-1251": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "koi8-r": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "iso-8859-7": "αβγδεζηθικλμνξοπρστυφχψω",
    "iso-8859-2": "ąćęłńóśźżáčďéěíňřšťúůýž",
    "iso-2022-jp": "あいうえお漢字日本語",
    "shift_jis": "あいうえお漢字日本語①㈱",
    "euc-kr": "안녕하세요한국어",
    "big5": "繁體中文測試",
}


@given(st.sampled_from(sorted(LETTERS)), st.data())
def test_a_text_of_a_script_survives(name: str, data: st.DataObject) -> None:
    text = data.draw(st.text(LETTERS[name] + " .", max_size=40))
    codec = CODECS.get(name, name)

    assert decode(text.encode(codec), name) == Decoded(text)


@given(st.text(max_size=40), st.sampled_from([None, "", "utf-8", "x-unknown", "us-ascii"]))
def test_any_text_in_utf_8_is_read_if_its_label_says_nothing_else(text: str, label: str | None) -> None:
    content = text.encode(errors="replace").removeprefix(b"\xef\xbb\xbf")

    assert decode(content, label) == Decoded(content.decode())


@given(st.binary(max_size=60), st.sampled_from([*LABELS]) | st.text(max_size=20))
def test_any_bytes_are_decoded(content: bytes, label: str) -> None:
    decode(content, label).text.encode()  # has no lone surrogates


@given(st.text("aé€🙂", min_size=1, max_size=40), st.integers(4, 100))
def test_a_text_is_not_cut_within_a_character(text: str, size: int) -> None:
    content = text.encode()
    beginning = beginning_of(content, size)

    assert text.startswith(beginning.decode())
    assert min(size, len(content)) - 3 <= len(beginning) <= size


def test_a_text_is_cut_between_lines_if_they_are_short() -> None:
    assert beginning_of(b"a\nbb\ncc\n", 6) == b"a\nbb\n"
    assert beginning_of(b"\n" + b"\x80" * 9, 6) == b"\n" + b"\x80" * 5
