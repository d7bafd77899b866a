from services.sender.app import create_app
from services.sender.provider_selection import create_adapters
from services.sender.settings import SenderSettings
from shared.observability.logging import configure
from shared.providers.choice import ProviderChoice
from shared.service import serve
from shared.settings import load, read


def main() -> None:
    settings = load(SenderSettings, program="sender", check=lambda: create_adapters(read(ProviderChoice)))
    configure(settings, service="sender")
    serve(create_app(settings), host=settings.health_host, port=settings.health_port, program="sender")


if __name__ == "__main__":
    main()
