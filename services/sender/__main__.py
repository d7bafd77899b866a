from services.sender.app import create_app
from services.sender.provider_selection import create_adapters
from services.sender.settings import SenderSettings
from shared.media_store import open_store
from shared.observability.logging import configure
from shared.providers.choice import ProviderChoice
from shared.providers.registry import media_credentials
from shared.service import serve
from shared.settings import MediaSettings, load, read


def _check() -> None:
    create_adapters(read(ProviderChoice))
    media_credentials()
    open_store(read(MediaSettings))


def main() -> None:
    settings = load(SenderSettings, program="sender", check=_check)
    configure(settings, service="sender")
    serve(create_app(settings), host=settings.health_host, port=settings.health_port, program="sender")


if __name__ == "__main__":
    main()
