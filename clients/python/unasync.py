"""Writes the synchronous client, which is the asynchronous one without `await`."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parent / "src" / "messaging_client"
_WORDS = {
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "AsyncGenerator": "Generator",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "asyncio": "time",
}
_REPLACED = re.compile(rf"\b({'|'.join(_WORDS)})\b")


def synchronous(source: str) -> str:
    """Return the source of the synchronous client."""
    source = re.sub(r"\b(async|await) ", "", source)
    source = source.replace("asynchronous", "synchronous")
    return _REPLACED.sub(lambda found: _WORDS[found[1]], source)


if __name__ == "__main__":
    text = synchronous((PACKAGE / "asynchronous.py").read_text(encoding="utf-8"))
    (PACKAGE / "synchronous.py").write_text(text, encoding="utf-8")
