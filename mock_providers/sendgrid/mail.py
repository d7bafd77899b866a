"""What `POST /v3/mail/send` takes, and what it has to say against it."""

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

MAX_RECIPIENTS = 1000
MAX_CUSTOM_ARGS = 10_000
"""Bytes of all the custom arguments of a message together."""

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html#message."


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("Does not contain a valid address.")
    return text


def _base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except ValueError as exc:
        raise ValueError("The attachment content must be base64 encoded.") from exc
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Address(_Part):
    email: Annotated[str, AfterValidator(_address)]
    name: str | None = None


class Personalization(_Part):
    to: list[Address] = Field(min_length=1)
    cc: list[Address] = []
    bcc: list[Address] = []
    subject: str | None = None
    headers: dict[str, str] = {}
    custom_args: dict[str, str] = {}
    send_at: int | None = None

    @property
    def recipients(self) -> list[str]:
        return [address.email for address in (*self.to, *self.cc, *self.bcc)]


class Content(_Part):
    type: str = Field(min_length=1)
    value: str = Field(min_length=1)


class Attachment(_Part):
    content: Annotated[str, Field(min_length=1), AfterValidator(_base64)]
    filename: str = Field(min_length=1)
    type: str | None = None
    disposition: Literal["inline", "attachment"] | None = None
    content_id: str | None = None


class Switch(_Part):
    enable: bool = False


class MailSettings(_Part):
    sandbox_mode: Switch = Switch()


class Mail(_Part):
    personalizations: list[Personalization] = Field(min_length=1, max_length=MAX_RECIPIENTS)
    from_: Address = Field(alias="from")
    subject: str | None = None
    content: list[Content] | None = None
    attachments: list[Attachment] = []
    reply_to: Address | None = None
    categories: list[str] = Field(default=[], max_length=10)
    headers: dict[str, str] = {}
    custom_args: dict[str, str] = {}
    mail_settings: MailSettings = MailSettings()
    template_id: str | None = None


@dataclass(frozen=True)
class Fault:
    message: str
    field: str | None = None

    @property
    def body(self) -> dict[str, str | None]:
        """`help` points to a chapter on the field, without the positions in lists."""
        chapter = re.sub(r"\.\d+", "", self.field or "")
        return {**asdict(self), "help": _HELP + chapter if chapter else None}


class RefusedError(Exception):
    """A request that gets an error.

    Attributes:
        status: Of HTTP.
        faults: All that was found.
    """

    def __init__(self, status: int, *faults: Fault) -> None:
        super().__init__(status, faults)
        self.status = status
        self.faults = faults


def parse_mail(body: bytes) -> Mail:
    """Raises RefusedError with all that is wrong with the body."""
    try:
        mail = Mail.model_validate_json(body)
    except ValidationError as exc:
        raise RefusedError(400, *map(_fault, exc.errors(include_url=False))) from exc
    if faults := [*_faults(mail)]:
        raise RefusedError(400, *faults)
    return mail


def _fault(error: ErrorDetails) -> Fault:
    """A fault of the shape, from pydantic's words to SendGrid's."""
    place = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "json_invalid":
            return Fault("Bad Request")
        case "missing" | "too_short" | "string_too_short":
            field = "from.email" if place == "from" else place
            return Fault(f"The {field.rpartition('.')[2]} parameter is required.", field)
        case "value_error":
            return Fault(error["msg"].removeprefix("Value error, "), place)
        case _:
            return Fault(error["msg"], place)


def _faults(mail: Mail) -> Iterator[Fault]:
    """What is wrong although each part has the right shape."""
    if not (mail.template_id or mail.subject or all(part.subject for part in mail.personalizations)):
        yield Fault("The subject is required.", "subject")
    yield from _content_faults(mail)
    if sum(len(part.recipients) for part in mail.personalizations) > MAX_RECIPIENTS:
        yield Fault(
            "There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations"
        )
    for position, part in enumerate(mail.personalizations):
        ((address, times),) = Counter(map(str.lower, part.recipients)).most_common(1)
        if times > 1:
            yield Fault(
                f"Each email address should be unique between to, cc, and bcc: [{address}] is not.",
                f"personalizations.{position}",
            )
        size = sum(
            len(name.encode()) + len(value.encode()) for name, value in custom_args(mail, part).items()
        )
        if size > MAX_CUSTOM_ARGS:
            yield Fault(
                "The custom_args are limited to 10000 bytes.", f"personalizations.{position}.custom_args"
            )


def _content_faults(mail: Mail) -> Iterator[Fault]:
    if not mail.content:
        if not mail.template_id:
            yield Fault(
                "Unless a valid template_id is provided, the content parameter is required.", "content"
            )
        return
    types = [content.type for content in mail.content]
    if "text/plain" in types[1:]:
        yield Fault("If present, text/plain must be first, and be there once.", "content")


def custom_args(mail: Mail, part: Personalization) -> dict[str, str]:
    """Those that a personalization has of its own go first."""
    return {**mail.custom_args, **part.custom_args}
