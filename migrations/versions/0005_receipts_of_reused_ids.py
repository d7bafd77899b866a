"""Do not take the receipts of an earlier message with the same provider id for those of a later one.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-26 04:30:00+00:00
"""

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

# Some providers use their ids again. A receipt that names a message by the provider's id only belongs to it
# unless it is a day older: the clock of a provider that gives no time zone may be wrong by half a day.
_SAME_ID = "receipt.provider_message_id = sent.provider_message_id"
_SAME_MESSAGE = f"({_SAME_ID} AND receipt.occurred_at > sent.occurred_at - interval '1 day')"

# A message that failed or expired in doubt (precedence 2) has no report `sent`. A receipt with our id belongs
# to the latest generation in which that happened.
_VIEW = """
    CREATE OR REPLACE VIEW message_history AS
    SELECT
        message_id,
        id AS event_id,
        'event' AS source,
        status,
        generation,
        precedence,
        attempt,
        provider,
        provider_message_id,
        error,
        next_attempt_at,
        occurred_at
    FROM message_events
    UNION ALL
    SELECT
        sent.message_id,
        receipt.id,
        'receipt',
        receipt.status,
        sent.generation,
        receipt.precedence,
        sent.attempt,
        receipt.provider,
        receipt.provider_message_id,
        CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_strip_nulls(
            jsonb_build_object('code', receipt.error_code, 'detail', receipt.error_detail)
        ) END,
        NULL,
        receipt.occurred_at
    FROM message_events AS sent
    JOIN delivery_receipts AS receipt ON receipt.provider = sent.provider AND (
        {same_message}
        OR receipt.message_id = sent.message_id
    )
    WHERE sent.status = 'sent'
    UNION ALL
    SELECT
        receipt.message_id,
        receipt.id,
        'receipt',
        receipt.status,
        doubtful.generation,
        receipt.precedence,
        doubtful.attempt,
        receipt.provider,
        receipt.provider_message_id,
        CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_strip_nulls(
            jsonb_build_object('code', receipt.error_code, 'detail', receipt.error_detail)
        ) END,
        NULL,
        receipt.occurred_at
    FROM delivery_receipts AS receipt
    CROSS JOIN LATERAL (
        SELECT generation, attempt FROM message_events
        WHERE message_id = receipt.message_id AND status IN ('failed', 'expired') AND precedence = 2
        ORDER BY generation DESC, attempt DESC
        LIMIT 1
    ) AS doubtful
    WHERE receipt.message_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM message_events AS sent
        WHERE sent.message_id = receipt.message_id AND sent.status = 'sent'
            AND sent.provider = receipt.provider
    )
"""


def upgrade() -> None:
    op.execute(_VIEW.format(same_message=_SAME_MESSAGE))


def downgrade() -> None:
    op.execute(_VIEW.format(same_message=_SAME_ID))
