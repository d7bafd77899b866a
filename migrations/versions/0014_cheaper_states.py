"""Store the states of messages at less cost.

The statement that stores a state also stores `created_at`, which a trigger looked up for each row. Messages
that have only been accepted have no receipts, so these are not looked up.

Revision ID: 0014
Revises: 0013
Create Date: 2026-11-26 11:00:00+00:00
"""

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None

_BY_INDEX = "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"

# Otherwise, PostgreSQL may plan the statement for each call: it takes a plan without receipts to be cheaper.
_PLANNED_ONCE = f"{_BY_INDEX} SET plan_cache_mode = force_generic_plan"

_COLUMNS = """
    message_id, event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
    error, next_attempt_at, occurred_at
"""

# A receipt belongs to a message that was sent, or that may have been sent although it failed.
_FIND_SENT = """
        are_sent := EXISTS (
            SELECT FROM message_events
            WHERE message_id = ANY (changed) AND status IN ('sent', 'failed', 'expired')
        );
"""
_HISTORY = """(
                SELECT * FROM message_history WHERE are_sent
                UNION ALL
                SELECT
                    message_id, id, 'event', status, generation, precedence, attempt, provider,
                    provider_message_id, error, next_attempt_at, occurred_at
                FROM message_events WHERE NOT are_sent
            )"""

# The function of migration 0009, whose comments explain it.
_UPDATE_MESSAGE_STATES = """
    CREATE OR REPLACE FUNCTION update_message_states(changed uuid[]) RETURNS void LANGUAGE plpgsql {settings}
    AS $$
    DECLARE
        known uuid[] = '{{}}';{declaration}
    BEGIN
        PERFORM pg_advisory_xact_lock(9002, number) FROM (
            SELECT DISTINCT uuid_hash(id) & 1023 AS number FROM unnest(changed) AS id ORDER BY number
        ) AS locks;

        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('message_events', 'id', ids) || former_ids('delivery_receipts', 'id', ids)
            INTO known
            FROM (
                SELECT array_agg(event_id) AS ids FROM message_history WHERE message_id = ANY (changed)
            ) AS reports;
        END IF;
{find_sent}
        WITH history AS MATERIALIZED (
            SELECT
                entry.*,
                message.created_at,
                message.channel,
                message.from_address,
                conversation.key AS conversation_key,
                former.event_id AS former_event_id,
                former.status AS former_status,
                former.generation AS former_generation,
                former.attempt AS former_attempt,
                former.message_id IS NULL
                    OR (entry.generation, entry.precedence, entry.attempt, entry.occurred_at)
                    > (former.generation, former.precedence, former.attempt, former.occurred_at) AS is_later,
                row_number() OVER ranks AS rank,
                lead(entry.status) OVER ranks AS previous_status,
                lead(entry.generation) OVER ranks AS previous_generation
            FROM {history} AS entry
            JOIN messages AS message ON message.id = entry.message_id
            JOIN conversations AS conversation ON conversation.id = message.conversation_id
            LEFT JOIN message_states AS former ON former.message_id = entry.message_id
            WHERE entry.message_id = ANY (changed)
            WINDOW ranks AS (
                PARTITION BY entry.message_id
                ORDER BY entry.generation DESC, entry.precedence DESC, entry.attempt DESC,
                    entry.occurred_at DESC, entry.event_id
            )
        ), stored AS (
            INSERT INTO message_states ({columns})
            SELECT {columns} FROM history
            WHERE rank = 1 AND (event_id, generation, attempt)
                IS DISTINCT FROM (former_event_id, former_generation, former_attempt)
            ON CONFLICT (message_id) DO UPDATE SET (
                event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
                error, next_attempt_at, occurred_at
            ) = (
                excluded.event_id, excluded.source, excluded.status, excluded.generation, excluded.precedence,
                excluded.attempt, excluded.provider, excluded.provider_message_id, excluded.error,
                excluded.next_attempt_at, excluded.occurred_at
            )
        )
        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'message.' || status,
            message_id || ' ' || event_id,
            json_build_object(
                'occurred_at', occurred_at,
                'channel', channel,
                'our_spelling', from_address,
                'message_id', message_id,
                'conversation_key', conversation_key,
                'report', json_build_object(
                    'status', status,
                    'source', source,
                    'generation', generation,
                    'attempt', attempt,
                    'provider', CASE WHEN status = 'sent' OR source = 'receipt' THEN provider END,
                    'provider_message_id', CASE WHEN status = 'sent' OR source = 'receipt'
                        THEN provider_message_id END,
                    'error', error
                )
            )
        FROM history
        WHERE status NOT IN ('retrying', 'unknown')
            AND NOT event_id = ANY (known)
            AND CASE
                WHEN is_later THEN (status, generation)
                    IS DISTINCT FROM (previous_status, previous_generation)
                ELSE rank = 1 AND status <> former_status
            END
        ORDER BY message_id, rank DESC;
    END
    $$
"""

# Dropping the trigger would stop readers of the table while it waits for writers.
_DATE_STATES = """
    CREATE OR REPLACE TRIGGER message_states_dated BEFORE INSERT ON message_states
    FOR EACH ROW {condition} EXECUTE FUNCTION date_message_state()
"""


def upgrade() -> None:
    op.execute(
        _UPDATE_MESSAGE_STATES.format(
            settings=_PLANNED_ONCE,
            declaration="\n        are_sent boolean;",
            find_sent=_FIND_SENT,
            history=_HISTORY,
            columns=f"{_COLUMNS}, created_at",
        )
    )
    op.execute(_DATE_STATES.format(condition="WHEN (NEW.created_at IS NULL)"))


def downgrade() -> None:
    op.execute(_DATE_STATES.format(condition=""))
    op.execute(
        _UPDATE_MESSAGE_STATES.format(
            settings=_BY_INDEX, declaration="", find_sent="", history="message_history", columns=_COLUMNS
        )
    )
