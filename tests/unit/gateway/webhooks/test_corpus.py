"""No e-mail of a corpus is lost on its way through the gateway, whether it is posted once or again."""

import httpx

from shared.bus.topology import Stream
from tests.jetstream import JetStream
from tests.mails import parsed_mails, raw_mails
from tests.unit.gateway.in_memory import events
from tests.webhooks import MULTIPART, SENDGRID_INBOUND, multipart


async def test_each_email_is_in_the_stream_once(client: httpx.AsyncClient, server: JetStream) -> None:
    posts = [multipart(fields) for fields, _ in (*parsed_mails(), *raw_mails())]
    for body in (*posts, *posts[::20]):
        response = await client.post(SENDGRID_INBOUND, content=body, headers=MULTIPART)
        assert response.status_code == 200, response.text

    bodies = [event.data.message.body.strip() for event in events(server, Stream.INBOUND)]
    assert bodies == [text for _, text in (*parsed_mails(), *raw_mails())]
    assert len(bodies) > 300
