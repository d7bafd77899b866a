from shared.settings import DatabaseSettings, WorkerSettings


class IngestSettings(WorkerSettings, DatabaseSettings):
    """All that ingest has to know."""
