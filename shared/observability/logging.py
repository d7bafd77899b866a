"""Structured logs with one event per line: JSON for programs, or text for people.

A call names an event and its fields: `log.info("message_sent", provider="twilio")`. Messages that libraries
log through the standard library are written in the same format. Fields without a value are left out.
"""

import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.observability.log_output import LogOutput
from shared.settings import Settings

_FIRST_FIELDS = ("timestamp", "level", "service", "event", "message_id")
_NO_VALUES: tuple[object, ...] = (None, "", [], (), {})
_NOISY_LIBRARIES = ("httpx", "httpcore", "nats", "uvicorn")

_LONGEST_LIST = 5
_UNQUOTED = re.compile(r"""[^\s'"=]+""")
_COLORS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_RESET = "\x1b[0m"


def configure(settings: Settings, *, service: str) -> None:
    """Configure logging for this process, in which every line belongs to `service`.

    Everything else that is written to stderr, such as the traceback of a thread, takes the same path.
    """
    sys.stderr = cast("TextIO", LogOutput(sys.stderr.fileno()))
    level = logging.getLevelNamesMapping()[settings.log_level]
    as_text = settings.log_format == "text"
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if as_text else "iso", utc=not as_text),
        _add_service(service),
    ]
    last: list[Processor] = [
        _arrange_fields,
        # It formats only the traceback; other formatters add local variables, which may contain credentials.
        structlog.processors.format_exc_info,
        _TextRenderer(sys.stderr) if as_text else structlog.processors.JSONRenderer(default=str),
    ]
    structlog.configure(
        processors=[*common, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name, _split_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _add_service(service: str) -> Processor:
    """Return a processor that adds the service in every thread, which a context variable would not do."""

    def add(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
        fields["service"] = service
        return fields

    return add


def _split_message(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Keep one line of a library's message as the event."""
    message = str(fields["event"]).strip()
    if message.startswith("Traceback "):  # uvicorn logs the traceback of a failed start as a message
        fields["event"] = message.rpartition("\n")[2]
        fields["exception"] = message
    else:
        fields["event"], _, fields["details"] = message.partition("\n")
    return fields


def _arrange_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Return the fields that have a value, with the common ones first."""
    arranged = {**dict.fromkeys(_FIRST_FIELDS), **fields}
    return {name: value for name, value in arranged.items() if value not in _NO_VALUES}


class _TextRenderer:
    """Renders an event as one line, with long lists cut short, and its traceback below.

    The name of the service is left out where the output is a pipe: the program at its other end, such as a
    supervisor or a container runtime, already marks every line with the process that wrote it.
    """

    def __init__(self, output: TextIO) -> None:
        self._shows_service = not _is_pipe(output)
        self._colors = _COLORS if output.isatty() else {}

    def __call__(self, _logger: WrappedLogger, _method: str, fields: EventDict) -> str:
        details = [_block(fields.pop(name)) for name in ("details", "exception") if name in fields]
        columns = list(self._columns(fields))
        pairs = [f"{name}={_text(value)}" for name, value in fields.items()]
        return "\n".join([" ".join(columns + pairs).rstrip(), *details])

    def _columns(self, fields: EventDict) -> Iterator[str]:
        yield fields.pop("timestamp")[: len("00:00:00.000")]
        level = fields.pop("level")
        color = self._colors.get(level)
        yield f"{color}{level:<8}{_RESET}" if color else f"{level:<8}"
        service = fields.pop("service")
        if self._shows_service:
            yield f"{service:<8}"
        yield f"{_escape(fields.pop('event', '')):<20}"


def _is_pipe(output: TextIO) -> bool:
    try:
        mode = os.fstat(output.fileno()).st_mode
    except OSError:  # not a file of the operating system
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        more = len(value) - _LONGEST_LIST
        return ",".join(map(_text, value[:_LONGEST_LIST])) + (f",…(+{more})" if more > 0 else "")
    text = str(value)
    return text if _UNQUOTED.fullmatch(text) and text.isprintable() else repr(text)


def _block(value: object) -> str:
    """Return a text of several lines, indented so that none of them looks like an event of its own."""
    return "\n".join(f"  {_escape(line)}" for line in str(value).rstrip().splitlines())


def _escape(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
