"""Structured logs: one JSON object a line, or text for a person.

A message can be followed through all services by its `message_id`.
"""

import logging
import sys

import structlog

from shared.settings import Settings


def configure(settings: Settings, *, service: str) -> None:
    """Set up logging of the process; every line carries the name of the `service`."""
    structlog.contextvars.bind_contextvars(service=service)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Where Rich is installed, the default shows local variables, and so credentials and texts.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if settings.log_format == "text"
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log through the standard library comes out in the same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "nats", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
