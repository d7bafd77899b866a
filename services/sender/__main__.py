import sys

from services.sender.app import create_app
from services.sender.provider_selection import RoutingError
from services.sender.settings import SenderSettings
from shared.observability.logging import configure
from shared.service import serve
from shared.settings import load


def main() -> None:
    settings = load(SenderSettings, program="sender")
    configure(settings, service="sender")
    try:
        app = create_app(settings)
    except RoutingError as exc:
        sys.exit(f"sender: {exc}")
    serve(app, host=settings.health_host, port=settings.health_port, program="sender")


if __name__ == "__main__":
    main()
