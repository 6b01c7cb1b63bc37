"""Structured logs: one event with fields, readable on a terminal, JSON for machines. Never a private field.

Source: docs/operations.md, "Logs".
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


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
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryLines()], force=True)


class _LibraryLines(logging.Handler):
    """Makes what libraries log one event a line as well: a trace of many lines is lost on whoever reads JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        log = get_log("library").bind(logger=record.name)
        log.log(record.levelno, "library warning", message=record.getMessage(), exc_info=record.exc_info)


def get_log(name: str) -> Any:
    """Return a logger whose events carry ``part=name``."""
    return structlog.get_logger().bind(part=name)
