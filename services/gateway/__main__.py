from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.observability.logging import configure
from shared.providers.registry import create_verifiers, opt_out_groups
from shared.service import serve
from shared.settings import load


def main() -> None:
    settings = load(GatewaySettings, program="gateway", check=create_verifiers)
    configure(settings, service="gateway")
    app = create_app(settings, create_verifiers(), opt_out_groups())
    serve(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        own=(settings.health_host, settings.gateway_health_port),
        drain_seconds=settings.drain_seconds,
        program="gateway",
    )


if __name__ == "__main__":
    main()
