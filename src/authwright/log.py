"""Structured logs: JSON lines in `serve`, readable ones in `dev`; every line of a request carries its id."""

import logging
import sys
from typing import Any

import structlog
from opentelemetry.trace import format_trace_id, get_current_span
from structlog.processors import ExceptionRenderer, format_exc_info
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

# Without the values of local variables: passwords and tokens are among them.
_dict_tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def configure_logs(*, level: str, readable: bool) -> None:
    """Set up the logs of this process, which is ours alone (an embedding app configures structlog itself)."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if readable else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            format_exc_info if readable else _dict_tracebacks,
            _without_controls,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Says which trace the line belongs to, if there is one."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
    return event


def _without_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """No value can start a new line or move a terminal's cursor (log injection)."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key not in ("exception", "event"):
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
