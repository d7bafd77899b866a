"""SendGrid accepts every e-mail that the gateway accepts, as far as its documented rules tell."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mock_providers.sendgrid.mail import parse_mail
from services.gateway.messages.schemas import EmailRequest
from services.gateway.messages.service import as_reply, outbound_message
from shared.ids import new_message_id
from shared.providers.base import File
from shared.providers.sendgrid.send import SendGridAdapter
from shared.providers.sendgrid.settings import SendGridSettings
from shared.validation import context_of
from tests import messages

ADAPTER = SendGridAdapter(SendGridSettings(_env_file=None, sendgrid_api_key="SG.mock"))
NAMES = (
    st.none() | st.sampled_from(["Jörg", "李雷", "Doe, Jane", 'a"b', "Jane (Sales)"]) | st.text(max_size=20)
)
LOCAL_PARTS = st.sampled_from(["ann", "ANN", "o'brien", "a+b", "pepé", "ann.", ""])
DOMAINS = st.sampled_from(
    ["example.com", "Example.COM", "bücher.example", "straße.example", "例え.example", "x"]
)
TEXTS = (
    st.none() | st.sampled_from(["", " ", "Hi", "<p>Hi</p>", "1 < 2", "<img src=x>"]) | st.text(max_size=20)
)


@st.composite
def mailboxes(draw: st.DrawFn) -> str:
    name, address = draw(NAMES), f"{draw(LOCAL_PARTS)}@{draw(DOMAINS)}"
    return address if name is None else f"{name} <{address}>"


OPTIONAL = {
    "subject": st.none() | st.text(max_size=20),
    "body_type": st.sampled_from([None, "html", "text"]),
    "text": TEXTS,
    **dict.fromkeys(("reply_to", "cc", "bcc"), st.none() | st.lists(mailboxes(), max_size=3)),
    "attachments": st.sampled_from([None, ["https://example.com/a.png"]]),
}


@given(st.fixed_dictionaries({"from": mailboxes(), "to": mailboxes(), "body": TEXTS}, optional=OPTIONAL))
def test_any_accepted_email_is_accepted_by_sendgrid(payload: dict[str, Any]) -> None:
    try:
        body = EmailRequest.model_validate(payload, context=context_of("US"))
    except ValidationError:
        return
    message = outbound_message(body, id_=new_message_id(), now=messages.now())
    reply = as_reply(messages.email(email_id="<1@b.c>", subject="Quote"), message)
    for each in (message, reply):
        mail = parse_mail(ADAPTER.request(each, [File("a.txt", "text/plain", b"A")]).body)
        recipients = mail.personalizations[0].recipients
        assert all(address.isascii() for address in [mail.from_.email, *recipients])
        assert all(value.isascii() for value in mail.headers.values())
        assert mail.from_.name == body.from_.name


@pytest.mark.parametrize(
    ("name", "of_recipient"),
    [
        ("Jörg Müller", "Jörg Müller"),
        ("李雷", "李雷"),
        ("Ann \U0001f389", "Ann \U0001f389"),
        ("St. John", "St. John"),
        ("Casey's Garage", "Casey's Garage"),
        ("Doe, Jane", '"Doe, Jane"'),
        ("Jane :(", '"Jane :("'),
        ('Jane "J" Doe', r'"Jane \"J\" Doe"'),
    ],
)
def test_a_name_is_sent_as_it_was_written(name: str, of_recipient: str) -> None:
    """SendGrid quotes the name of the sender itself, but not those of the recipients."""
    payload = {"from": f"{name} <a@b.example>", "to": f"{name} <c@d.example>", "body": "Hi"}
    body = EmailRequest.model_validate(payload, context=context_of("US"))
    message = outbound_message(body, id_=new_message_id(), now=messages.now())

    mail = parse_mail(ADAPTER.request(message, []).body)

    assert (mail.from_.name, mail.personalizations[0].to[0].name) == (name, of_recipient)
