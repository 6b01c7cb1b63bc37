"""Structured logs: one event with fields, readable on a terminal, JSON for machines. Never a private field.

What an exception says may hold what a platform or a peer sent, ``KeyError: '+442071838750'``. Traces therefore name
the kind and the places; in words come only errors of the disk and of the project that tell of the program itself.

Source: docs/operations.md, "Logs".
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from ledger.errors import ConfigError, EncodingError, LedgerError, RuleViolation


def set_up_logs(level: str, form: str) -> None:
    """Send every event of ``level`` and above to standard error, as ``text`` or ``json``; ``auto``: by terminal."""
    is_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            sort_keys=False,
            # One event stays one short line: a terminal is 80 to 120 characters wide.
            pad_event_to=0,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(lambda info: trace_of(info[1])),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryLines()], force=True)
    # What nobody caught would be printed with all its words.
    sys.excepthook = lambda _kind, error, _trace: _log_uncaught("ended", error)
    threading.excepthook = lambda caught: _log_uncaught("a thread ended", caught.exc_value)
    sys.unraisablehook = lambda caught: _log_uncaught("lost", caught.exc_value)


def _log_uncaught(how: str, error: BaseException | None) -> None:
    if not isinstance(error, SystemExit):
        get_log("python").error(how, exc_info=error)


class _LibraryLines(logging.Handler):
    """Makes what libraries log one event a line as well: a trace of many lines is lost on whoever reads JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        log = get_log("library").bind(logger=record.name)
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # Whoever reaches the port can send what is no HTTP, as often as he likes: he is answered, and that is all.
            log.debug("not HTTP", kind=type(error).__name__)
            return
        # asyncio shows below its first line what was under way, with the arguments.
        message = record.getMessage().partition("\n")[0]
        log.log(record.levelno, "library warning", message=message, exc_info=record.exc_info)


def get_log(name: str) -> Any:
    """Return a logger whose events carry ``part=name``."""
    return structlog.get_logger().bind(part=name)


def trace_of(error: BaseException | None) -> str:
    """Return where an exception was raised and of what kind it is, with what led to it; no words that others sent."""
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        places = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        parts.append(f"Traceback (most recent call last):\n{places}{_named(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nThe above happened before this:\n\n".join(reversed(parts))


def _named(error: BaseException) -> str:
    """Return the kind of an exception, and its words where they are the program's own."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, OSError):
        return f"{name}: {error.strerror}"
    is_own = isinstance(error, LedgerError) and not isinstance(error, EncodingError | RuleViolation | ConfigError)
    return f"{name}: {error}" if is_own else name
