"""The views, as SQLAlchemy selects from them; migrations create them."""

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
"""The reports on each message: its events and its provider's receipts.

The report with the highest (generation, precedence, attempt) wins, and among equal ones the latest.
"""
