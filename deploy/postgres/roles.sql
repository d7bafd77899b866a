-- The users of the services: the gateway and the notifier read, and ingest writes. The owner of the database runs the migrations.
--
-- PostgreSQL's image runs this file when it sets up a new database. For an existing one, and after a change to a
-- password, run it again:
--   docker-compose exec postgres psql messaging_service messaging_user -f /docker-entrypoint-initdb.d/roles.sql

\set ON_ERROR_STOP on
\getenv gateway_password POSTGRES_GATEWAY_PASSWORD
\getenv ingest_password POSTGRES_INGEST_PASSWORD
\getenv notifier_password POSTGRES_NOTIFIER_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['gateway', 'ingest', 'notifier']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

ALTER ROLE gateway PASSWORD :'gateway_password';
ALTER ROLE ingest PASSWORD :'ingest_password';
ALTER ROLE notifier PASSWORD :'notifier_password';

-- For the tables that exist, and for those that migrations will create.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO gateway, ingest, notifier;
GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO ingest;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ingest;
-- The functions that exceed the rights of their caller are for ingest only.
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO ingest;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO ingest;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO gateway, ingest, notifier;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT INSERT, UPDATE ON TABLES TO ingest;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO ingest;
