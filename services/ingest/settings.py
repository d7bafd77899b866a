from shared.settings import DatabaseSettings, WorkerSettings


class IngestSettings(WorkerSettings, DatabaseSettings):
    """The settings of ingest."""
