from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.observability.logging import configure
from shared.providers.registry import PROVIDERS, create_verifier
from shared.service import serve
from shared.settings import SettingsError, exit_with, load


def main() -> None:
    settings = load(GatewaySettings, program="gateway")
    try:
        verifiers = {name: create_verifier(provider) for name, provider in PROVIDERS.items()}
    except SettingsError as exc:
        exit_with(exc, program="gateway")
    configure(settings, service="gateway")
    app = create_app(settings, verifiers)
    serve(app, host=settings.gateway_host, port=settings.gateway_port, program="gateway")


if __name__ == "__main__":
    main()
