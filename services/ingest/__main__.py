from services.ingest.app import create_app
from services.ingest.settings import IngestSettings
from shared.observability.logging import configure
from shared.service import serve
from shared.settings import load


def main() -> None:
    settings = load(IngestSettings, program="ingest")
    configure(settings, service="ingest")
    serve(create_app(settings), host=settings.health_host, port=settings.health_port, program="ingest")


if __name__ == "__main__":
    main()
