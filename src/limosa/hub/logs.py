"""What a service logs: lines of JSON on standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_LOG_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A log record as one line of JSON, with all that ``extra`` holds.

    >>> record = logging.makeLogRecord({"msg": "refused", "levelname": "INFO", "client": "::1"})
    >>> json.loads(JsonLines().format(record))["client"]
    '::1'
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _LOG_RECORD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_logging(level: str) -> None:
    """Log lines of JSON on standard error, limosa's own from *level* on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("limosa").setLevel(level.upper())
