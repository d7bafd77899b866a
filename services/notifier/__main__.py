from functools import partial

from services.notifier.app import create_app
from services.notifier.settings import NotifierSettings
from shared.endpoint_secrets import EndpointKeySettings
from shared.observability.logging import configure
from shared.service import serve
from shared.settings import load, read


def main() -> None:
    required = partial(read, EndpointKeySettings, required=("webhook_endpoint_key",))
    settings = load(NotifierSettings, program="notifier", check=required)
    configure(settings, service="notifier")
    serve(create_app(settings), host=settings.health_host, port=settings.health_port, program="notifier")


if __name__ == "__main__":
    main()
