"""The body of `POST /v3/mail/send`, and its validation with SendGrid's error messages."""

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
"""The total size of the custom arguments of one personalization, in bytes."""

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
    reply_to_list: list[Address] = []
    categories: list[str] = Field(default=[], max_length=10)
    headers: dict[str, str] = {}
    custom_args: dict[str, str] = {}
    mail_settings: MailSettings = MailSettings()
    template_id: str | None = None


@dataclass(frozen=True)
class Problem:
    message: str
    field: str | None = None

    @property
    def body(self) -> dict[str, str | None]:
        """The problem in an error response. `help` links to the field, without positions in lists."""
        anchor = re.sub(r"\.\d+", "", self.field or "")
        return {**asdict(self), "help": _HELP + anchor if anchor else None}


class SendGridError(Exception):
    """An error response.

    Attributes:
        status: The HTTP status.
        problems: All problems of the request.
    """

    def __init__(self, status: int, *problems: Problem) -> None:
        super().__init__(status, problems)
        self.status = status
        self.problems = problems


def parse_mail(body: bytes) -> Mail:
    """Return the e-mail in a body.

    Raises:
        SendGridError: The body is not valid. The error lists all problems.
    """
    try:
        mail = Mail.model_validate_json(body)
    except ValidationError as exc:
        raise SendGridError(400, *map(_translate, exc.errors(include_url=False))) from exc
    if problems := [*_problems(mail)]:
        raise SendGridError(400, *problems)
    return mail


def _translate(error: ErrorDetails) -> Problem:
    """Return one of pydantic's errors in SendGrid's words."""
    field = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "json_invalid":
            return Problem("Bad Request")
        case "missing" | "too_short" | "string_too_short":
            field = "from.email" if field == "from" else field
            return Problem(f"The {field.rpartition('.')[2]} parameter is required.", field)
        case "value_error":
            return Problem(error["msg"].removeprefix("Value error, "), field)
        case _:
            return Problem(error["msg"], field)


def _problems(mail: Mail) -> Iterator[Problem]:
    """Yield the problems that concern more than one field."""
    if not (mail.template_id or mail.subject or all(part.subject for part in mail.personalizations)):
        yield Problem("The subject is required.", "subject")
    yield from _content_problems(mail)
    if sum(len(part.recipients) for part in mail.personalizations) > MAX_RECIPIENTS:
        yield Problem(
            "There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations"
        )
    for position, part in enumerate(mail.personalizations):
        ((address, times),) = Counter(map(str.lower, part.recipients)).most_common(1)
        if times > 1:
            yield Problem(
                f"Each email address should be unique between to, cc, and bcc: [{address}] is not.",
                f"personalizations.{position}",
            )
        size = sum(
            len(name.encode()) + len(value.encode()) for name, value in custom_args(mail, part).items()
        )
        if size > MAX_CUSTOM_ARGS:
            yield Problem(
                "The custom_args are limited to 10000 bytes.", f"personalizations.{position}.custom_args"
            )


def _content_problems(mail: Mail) -> Iterator[Problem]:
    if not mail.content:
        if not mail.template_id:
            yield Problem(
                "Unless a valid template_id is provided, the content parameter is required.", "content"
            )
        return
    types = [content.type for content in mail.content]
    if "text/plain" in types[1:]:
        yield Problem("If present, text/plain must be first, and must not be repeated.", "content")


def custom_args(mail: Mail, part: Personalization) -> dict[str, str]:
    """Return the custom arguments of a personalization, which override those of the e-mail."""
    return {**mail.custom_args, **part.custom_args}
