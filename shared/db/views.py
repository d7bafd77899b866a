"""The views, as their readers see them."""

from sqlalchemy import DateTime, Integer, Text, Uuid, column, table
from sqlalchemy.dialects.postgresql import JSONB

message_history = table(
    "message_history",
    column("message_id", Uuid()),
    column("event_id", Uuid()),
    column("source", Text()),
    column("status", Text()),
    column("generation", Integer()),
    column("precedence", Integer()),
    column("attempt", Integer()),
    column("provider", Text()),
    column("provider_message_id", Text()),
    column("error", JSONB()),
    column("next_attempt_at", DateTime(timezone=True)),
    column("occurred_at", DateTime(timezone=True)),
)
"""What happened to each message, by its events and its provider's receipts.

What became of a message says the row of the highest (generation, precedence, attempt), and of several the
earliest.
"""
