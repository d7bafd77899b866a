from services.sender.app import create_app
from services.sender.settings import SenderSettings
from shared.observability.logging import configure
from shared.service import serve
from shared.settings import SettingsError, exit_with, load


def main() -> None:
    settings = load(SenderSettings, program="sender")
    configure(settings, service="sender")
    try:
        app = create_app(settings)
    except SettingsError as exc:
        exit_with(exc, program="sender")
    serve(app, host=settings.health_host, port=settings.health_port, program="sender")


if __name__ == "__main__":
    main()
