"""The content of an e-mail as SendGrid posts it: parsed, or raw in the field `email`."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from shared.providers.charsets import Decoded, beginning_of, decode
from shared.providers.forms import (
    ROOM_FOR_BODY,
    ROOM_FOR_FIELDS,
    FormFile,
    MultipartForm,
    cut_to,
    fit_form,
)
from shared.providers.mail_headers import Headers, decode_words
from shared.providers.mime import MAX_TEXT, Mail, parse_mime
from shared.text import NOT_TEXT, clean_text, single_line
from shared.validation import MAX_SUBJECT

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

_ROOM_FOR_BYTES = 128 * 1024
"""Bytes of JSON, out of `ROOM_FOR_FIELDS`."""

_MAX_END = 4_096
_FULL_COPIES = 100
_MAX_FILES_LISTED = 100
_MAX_WARNINGS = 20
_MAX_LABEL = 100

_MORE_WARNINGS = "There are more warnings, which are not listed"

_READ = ("headers", "from", "to", "cc", "subject", "html", "text", "charsets", "email")
"""The fields that an e-mail consists of."""

_LONG = ("html", "text", "email")
"""Fields that may be longer: `email` is parsed as a whole, and the body has a warning of its own."""

_ATTACHMENT = re.compile(r"attachment[0-9]{1,4}")
"""A field that is a file without a name."""

_object = TypeAdapter(dict[str, Any])


@dataclass(slots=True)
class PostedMail:
    """An e-mail.

    Attributes:
        fields: the fields of SendGrid's form, decoded.
        envelope: the sender and the recipients that mail servers were told, if it can be read.
        headers: those of the e-mail.
        body: the HTML, or the text if there is none or the HTML is too long; cut if both are too long.
        warnings: the parts that could not be read, in words.
        files: the attachments; at most 100 of them.
    """

    fields: dict[str, str] = field(default_factory=dict)
    envelope: Mapping[str, Any] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    subject: str | None = None
    body: str = ""
    warnings: list[str] = field(default_factory=list)
    files: list[FormFile] = field(default_factory=list)
    _undecodable: dict[str, bytes] = field(default_factory=dict)
    _digest: "HASH" = field(default_factory=sha256)

    @classmethod
    def parse(cls, form: MultipartForm) -> "PostedMail":
        mail = cls()
        values = mail._read_values(form)
        mail._read_fields(values)
        mail.envelope = _json_object(mail.fields.get("envelope", ""))
        info = _json_object(mail.fields.get("attachment-info", ""))
        files = [*form.files, *_unnamed_files(form, info)]
        mail._read_identity(values, files)
        if values.get("html", b"").strip() or values.get("text", b"").strip() or not values.get("email"):
            mail._read_parsed(files, info)
        else:
            mail._read_raw(parse_mime(values["email"]))
        subject = mail.fields.get("subject") or mail.headers.first("subject")
        mail._read_subject(decode_words(subject))
        return mail

    def warn(self, text: str) -> None:
        if len(self.warnings) >= _MAX_WARNINGS:
            text = _MORE_WARNINGS
        if text not in self.warnings:
            self.warnings.append(text)

    def digest_for(self, sender: str, recipient: str) -> str:
        """Return a digest of the e-mail and of its envelope."""
        digest = self._digest.copy()
        digest.update(json.dumps([sender, recipient]).encode())
        return digest.hexdigest()[:32]

    def raw(self, copies: int) -> Mapping[str, Any]:
        """Return the form without the contents of files, cut to what a stream can hold.

        Args:
            copies: how often it will be published; more than 100 copies are shorter.
        """
        room = ROOM_FOR_FIELDS * _FULL_COPIES // max(copies, _FULL_COPIES)
        fields, cut = fit_form(dict(self.fields), room)
        files = [
            file.describe() | {"type": single_line(file.type, limit=_MAX_LABEL)}
            for file in self.files[:_MAX_FILES_LISTED]
        ]
        raw: dict[str, Any] = {"fields": fields, "files": files, "cut": cut}
        if self._undecodable:
            share = room * _ROOM_FOR_BYTES // ROOM_FOR_FIELDS // len(self._undecodable) * 3 // 4
            raw["bytes"] = {
                name: b64encode(value[:share]).decode() for name, value in self._undecodable.items()
            }
            raw["cut"] = cut + [
                f"bytes.{name}" for name, value in self._undecodable.items() if len(value) > share
            ]
        return raw

    def _read_values(self, form: MultipartForm) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for name, value in form.fields:
            if name in values:
                self.warn(f"The field {clean_text(name)} occurs more than once; the first one is used")
            values.setdefault(name, value)
        if form.ignored:
            self.warn(f"The e-mail has too many parts; {form.ignored:,} of them were left out")
        return values

    def _read_identity(self, values: Mapping[str, bytes], files: list[FormFile]) -> None:
        for name in _READ:
            value = values.get(name, b"")
            self._digest.update(f"{name}:{len(value)}:".encode() + value)
        self._digest.update(json.dumps([file.describe() for file in files]).encode())

    def _read_fields(self, values: Mapping[str, bytes]) -> None:
        charsets = _json_object(values.get("charsets", b""))
        for name, value in values.items():
            self.fields[name] = self._decode(name, beginning_of(value, MAX_TEXT), charsets.get(name))
            if len(value) > MAX_TEXT and name in _READ and name not in _LONG:
                self.warn(f"The field {name} was cut to {MAX_TEXT:,} bytes")

    def _decode(self, name: str, value: bytes, charset: object) -> str:
        decoded = decode(value, charset if isinstance(charset, str) else None)
        if decoded.is_lossy:
            self._undecodable[name] = value
            if name in _READ and name != "email":
                self._warn_of_charset(name)
        return decoded.text

    def _warn_of_charset(self, name: str) -> None:
        self.warn(f"Some characters of {name} could not be decoded; its bytes are kept in the raw payload")

    def _read_parsed(self, files: list[FormFile], info: Mapping[str, Any]) -> None:
        self.headers = Headers.parse(self.fields.get("headers", ""))
        if not self.headers.is_whole:
            self.warn("Some lines of the headers could not be read, and were left out")
        self._read_body(self.fields.get("html", ""), self.fields.get("text", ""))
        self._read_files(files, info)
        if not self.body:
            self._read_unnamed_text()

    def _read_raw(self, mail: Mail) -> None:
        self.headers = mail.headers
        for warning in mail.warnings:
            self.warn(warning)
        for type_, (decoded, content) in mail.texts.items():
            if decoded.is_lossy:
                self._undecodable[type_] = content
                self._warn_of_charset(type_)
        html, text = (
            mail.texts[type_][0].text if type_ in mail.texts else "" for type_ in ("text/html", "text/plain")
        )
        self._read_body(html, text)
        self._read_files(mail.files, {})

    def _read_subject(self, written: Decoded) -> None:
        text = " ".join(written.text.split())
        self.subject = single_line(text, limit=MAX_SUBJECT) or None
        if written.is_lossy:
            self.warn("Some characters of the subject could not be decoded")
        if NOT_TEXT.search(text[:MAX_SUBJECT]):
            self.warn("Some characters of the subject could not be stored and were replaced")
        if len(text) > MAX_SUBJECT:
            self.warn(f"The subject was cut to {MAX_SUBJECT} characters")

    def _read_unnamed_text(self) -> None:
        """Use the first text without a name, of a type such as Markdown, as the body."""
        for file in self.files:
            if file.type.lower().startswith("text/") and not file.name and file.content.strip():
                charset = Headers((("content-type", file.type),)).charset
                self._read_body("", self._decode(file.field, beginning_of(file.content, MAX_TEXT), charset))
                if file.field in self._undecodable:
                    self._warn_of_charset(file.field)
                return

    def _read_files(self, files: list[FormFile], info: Mapping[str, Any]) -> None:
        if len(files) > _MAX_FILES_LISTED:
            self.warn(f"Only {_MAX_FILES_LISTED} of {len(files):,} attachments are listed")
        for file in files[:_MAX_FILES_LISTED]:
            described = info.get(file.field)
            name = file.name or str(described.get("filename", "") if isinstance(described, dict) else "")
            decoded = decode_words(name)
            if file.is_name_lossy or decoded.is_lossy:
                self.warn("Some characters in the name of an attachment could not be decoded")
            kept = _file_name(decoded.text)
            if kept != " ".join(decoded.text.split()):
                self.warn("The name of an attachment was shortened, or some of its characters were replaced")
            self.files.append(replace(file, name=kept))

    def _read_body(self, html: str, text: str) -> None:
        versions = [version for version in (html, text) if version.strip()]
        for number, version in enumerate(versions):
            body = _fit_body(version)
            if len(body) == len(version):
                self._keep_body(body, version)
                if number:
                    self.warn("The HTML is too long; the body is the plain text")
                return
        if versions:
            body = _fit_body(versions[0])
            self._keep_body(_cut_between_tags(body) if html.strip() else body, versions[0])
            self.warn(f"The body was cut to {len(self.body):,} characters")

    def _keep_body(self, body: str, version: str) -> None:
        self.body = body
        if not version.startswith(body):
            self.warn("Some characters of the body could not be stored and were replaced")


def _unnamed_files(form: MultipartForm, info: Mapping[str, Any]) -> list[FormFile]:
    """Return the files without a name, which look like other fields of a form."""
    described = {name: value for name, value in info.items() if isinstance(value, dict)}
    return [
        FormFile(name, "", str(described.get(name, {}).get("type") or ""), len(value), value)
        for name, value in form.fields
        if _ATTACHMENT.fullmatch(name)
    ]


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        return _object.validate_json(text)
    except ValidationError:
        return {}


def _fit_body(version: str) -> str:
    return cut_to(clean_text(version[:ROOM_FOR_BODY]), ROOM_FOR_BODY)


def _cut_between_tags(html: str) -> str:
    """Return HTML that was cut anywhere, without a tag or a few words that are incomplete at its end."""
    end = html.rfind(">") + 1
    if end and len(html) - end <= _MAX_END:
        return html[:end]
    start = html.rfind("<", end)
    return html[:start] if start > 0 else html


def _file_name(text: str) -> str:
    return single_line(re.split(r"[/\\]", text)[-1], limit=_MAX_LABEL)
