"""Log lines: an event with fields, as readable text or as one JSON object a line, on stderr.

Every line of a run has its id.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_run_id: str | None = None


def set_up(level: int, form: str) -> None:
    """Log from `level` on; `form` is console or json."""
    handler = _Stderr()
    handler.setFormatter(_Json() if form == "json" else _Console())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for own in ("jobs", "recommender", "storage", "scheduler", "__main__"):
        logging.getLogger(own).setLevel(level)


def belongs_to(run_id: str | None) -> None:
    """From here on, every line carries `run_id`."""
    global _run_id
    _run_id = run_id


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given with the event; names with an underscore are of libraries that add to every line, as Ray does."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at the time: a progress bar puts something in its place that writes above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        shown = "  ".join(f"{key}={_short(value)}" for key, value in _fields(record).items())
        warning = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line = f"{at}  {warning}{record.getMessage():<18}  {shown}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if _run_id is not None:
            line["run_id"] = _run_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | _fields(record), default=str)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
