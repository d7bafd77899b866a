import sys

from messaging_service_client import Client
from messaging_service_client.api.conversations import list_conversations
from messaging_service_client.api.dead_letters import replay_dead_letters
from messaging_service_client.api.messages import send_email, send_sms
from messaging_service_client.models import (
    BulkReplayRequest,
    BulkResponse,
    ConversationPage,
    EmailRequest,
    MessageResponse,
    SmsRequest,
    SmsRequestType,
)

client = Client(base_url=sys.argv[1])
sms = SmsRequest(from_="+12016661234", to="+18045551234", type_=SmsRequestType.SMS, body="Hello")
email = EmailRequest(from_="shop@example.com", to="ann@example.org", subject="Hello", body="Hello")
for message in (send_sms.sync(client=client, body=sms), send_email.sync(client=client, body=email)):
    assert isinstance(message, MessageResponse), message
assert isinstance(list_conversations.sync(client=client, limit=1), ConversationPage)
replayed = replay_dead_letters.sync(client=client, body=BulkReplayRequest(all_=True))
assert isinstance(replayed, BulkResponse), replayed
