from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.observability.logging import configure
from shared.service import serve
from shared.settings import load


def main() -> None:
    settings = load(GatewaySettings, program="gateway")
    configure(settings, service="gateway")
    serve(create_app(settings), host=settings.gateway_host, port=settings.gateway_port, program="gateway")


if __name__ == "__main__":
    main()
