"""The tables: a projection of the streams that only ingest writes and only the gateway reads.

Each row records a fact; it is inserted once and never changed. The status of a message follows from its
events and receipts (the view `message_history`), so that their order of arrival does not matter. Triggers
maintain the exceptions, in the transaction that inserts the facts: `message_states`, the columns by which
conversations and dead letters are listed, `participant_messages`, `message_metadata` and `suppressions`. They
also fill `notification_outbox`.
"""

from shared.db.tables.base import Base
from shared.db.tables.conversations import Conversation, ConversationParticipant, Participant
from shared.db.tables.dead_letters import DeadLetter, DeadLetterResolution
from shared.db.tables.messages import Media, Message, MessageMetadata, ParticipantMessage
from shared.db.tables.notifications import OutboxNotification, Traffic, WebhookAttempt
from shared.db.tables.reports import DeliveryReceipt, MessageEvent, MessageState
from shared.db.tables.suppressions import Suppression, SuppressionChange

__all__ = [
    "Base",
    "Conversation",
    "ConversationParticipant",
    "DeadLetter",
    "DeadLetterResolution",
    "DeliveryReceipt",
    "Media",
    "Message",
    "MessageEvent",
    "MessageMetadata",
    "MessageState",
    "OutboxNotification",
    "Participant",
    "ParticipantMessage",
    "Suppression",
    "SuppressionChange",
    "Traffic",
    "WebhookAttempt",
]
