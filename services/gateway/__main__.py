from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.media_store import open_store
from shared.observability.logging import configure
from shared.providers.registry import create_verifiers, opt_out_groups
from shared.service import serve
from shared.settings import MediaSettings, load, read


def _check() -> None:
    create_verifiers()
    open_store(read(MediaSettings))


def main() -> None:
    settings = load(GatewaySettings, program="gateway", check=_check)
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
