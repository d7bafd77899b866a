"""Bodies that are not acceptable JSON: broken, nested too deeply, not finite, or in another encoding."""

UNREADABLE_JSON = [
    b"",
    b"{",
    b"{'from': 1}",
    b'{"body": 1' + b"0" * 5_000 + b"}",
    b"[" * 100 + b"]" * 100,
    b"[" * 100_000,
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
]

MALFORMED_JSON = [
    *UNREADABLE_JSON,
    b'{"body": NaN}',
    b'{"body": Infinity}',
    b"\xef\xbb\xbf{}",
    b'{"body": "\xff"}',
    '{"body": "x"}'.encode("utf-16"),
]
"""The bodies that clients must not send; those of providers are read as far as possible."""
