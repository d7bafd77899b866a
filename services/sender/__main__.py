from services.sender.app import create_app
from services.sender.settings import SenderSettings
from shared.logging import configure
from shared.service import serve
from shared.settings import load


def main() -> None:
    settings = load(SenderSettings, program="sender")
    configure(settings, service="sender")
    serve(create_app(settings), host=settings.health_host, port=settings.health_port, program="sender")


if __name__ == "__main__":
    main()
