"""Extracts the visible text of HTML in linear time, whatever the HTML is.

E-mails contain HTML that anybody may have written. A parser that builds a tree, as HTML5 specifies, takes
quadratic time for some of it, and so does Python's `html.parser` before its releases of late 2025. This one
only separates tags from text. No part of its expressions can fail after it has matched something, so that no
character is read twice.
"""

import re
from html import unescape

_MARKUP = re.compile(
    r"""
    <!--(?:-?>|.*?(?:--!?>|\Z))                                    # a comment
    |<(?P<hidden>script|style|title)(?=[\s/>])[^>]*+>?+            # an element whose content is not shown
      .*?(?:</(?P=hidden)(?=[\s/>])[^>]*+>?+|\Z)
    |<(?P<end>/?)(?P<tag>[a-z][^\s/>]*+)                           # a tag
      (?P<attributes>(?:[^=>]++|=\s*+(?:"[^"]*+"?+|'[^']*+'?+)?+)*+)>?+
    |<[!?/][^>]*+>?+                                               # a declaration, or something invalid
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
"""Markup that is not closed extends to the end of the text, as in HTML5."""

_ATTRIBUTE = re.compile(
    r"""(?P<name>[^\s/=]++)\s*+(?:=\s*+(?:"(?P<double>[^"]*+)"?+|'(?P<single>[^']*+)'?+|(?P<bare>\S*+)))?+"""
)
_BLOCKS = {
    *("address", "article", "blockquote", "body", "br", "div", "dl", "dt", "footer", "h1", "h2", "h3", "h4"),
    *("h5", "h6", "header", "hr", "li", "ol", "p", "pre", "section", "table", "tr", "ul"),
}
_CELLS = {"td", "th"}

_LONG_REFERENCE = re.compile(r"&#[0-9]{10,}+;?+")
"""A reference to a character that does not exist; Python refuses to read numbers of thousands of digits."""


def visible_text(html: str) -> str:
    """Return the text that a reader of the HTML sees, with the addresses of links."""
    text = _Text()
    position = 0
    for markup in _MARKUP.finditer(html):
        text.add(html[position : markup.start()])
        position = markup.end()
        if tag := markup["tag"]:
            handle = text.end if markup["end"] else text.start
            handle(tag.lower(), markup["attributes"])
    text.add(html[position:])
    return str(text)


class _Text:
    """Collects the visible text."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._url = ""
        self._link_text: list[str] | None = None

    def __str__(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def add(self, html: str) -> None:
        if html:
            self._append(re.sub(r"\s+", " ", _unescape(html)))

    def start(self, tag: str, attributes: str) -> None:
        if tag in _BLOCKS:
            self._append("\n- " if tag == "li" else "\n")
        elif tag == "img":
            self._append(re.sub(r"\s+", " ", _attribute("alt", attributes)))
        elif tag == "a":
            self._end_link()
            self._url, self._link_text = _attribute("href", attributes).strip(), []

    def end(self, tag: str, _attributes: str) -> None:
        if tag in _BLOCKS:
            self._append("\n")
        elif tag in _CELLS:
            self._append(" ")
        elif tag == "a":
            self._end_link()

    def _end_link(self) -> None:
        """Show the address of the link, unless its text is the address."""
        if self._link_text is None:
            return
        text, self._link_text = "".join(self._link_text), None
        if self._url.startswith(("http:", "https:")) and self._url not in text:
            self._append(f" ({self._url})")

    def _append(self, text: str) -> None:
        self._parts.append(text)
        if self._link_text is not None:
            self._link_text.append(text)


def _attribute(name: str, attributes: str) -> str:
    """Return the value of an attribute, or an empty text if there is none."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found["name"].lower() == name:
            return _unescape(found["double"] or found["single"] or found["bare"] or "")
    return ""


def _unescape(html: str) -> str:
    return unescape(_LONG_REFERENCE.sub("\ufffd", html)) if "&" in html else html
