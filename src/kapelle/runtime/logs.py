"""Logging set-up: constant messages with fields, as `key=value` or JSON lines; secrets stay out.

Rooms write `log.info("link lost", extra={"adapter": name})`; the message is constant so that it can
be counted and searched for, and everything that varies is a field.
"""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec

Form = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(r"(password|secret|token|credential|authorization|passphrase)", re.I)
_SECRET_IN_TEXT = re.compile(
    r"(?i)(?P<before>\b(?:password|secret|token|authorization)\b[=: ]+(?:bearer )?|://[^/:@\s]*:(?=[^\s@]*@))"
    r"(?P<secret>[^\s@,;\"']+)"
)
_HIDDEN = "***"


def set_up(form: Form = "text", level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log line of the process to one stream (stderr) in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else KeyValue())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class KeyValue(logging.Formatter):
    """`2026-05-01T12:00:00.123Z info  fleet  owner started  partition=3 epoch=7`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the traceback below it where there is one."""
        name = record.name.removeprefix("kapelle.")
        head = f"{_when(record)} {record.levelname.lower():<7} {name}: {record.getMessage()}"
        parts = [head, *(f"{key}={_quoted(value)}" for key, value in fields(record).items())]
        line = hide(" ".join(parts).replace("\n", "\\n"))
        if record.exc_info:
            line += "\n" + hide(self.formatException(record.exc_info))
        return line


class JsonLines(logging.Formatter):
    """One JSON object per line: `at`, `level`, `room`, `message`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, object] = {
            "at": _when(record),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("kapelle."),
            "message": hide(record.getMessage()),
            **fields(record),
        }
        if record.exc_info:
            line["error"] = hide(self.formatException(record.exc_info))
        return msgspec.json.encode(line, enc_hook=str).decode()


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as `extra`, without anything that looks like a secret."""
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {
        key: _HIDDEN
        if _SECRET_NAME.search(key)
        else hide(value)
        if isinstance(value, str)
        else value
        for key, value in given.items()
    }


def hide(text: str) -> str:
    """Return a text with passwords and tokens hidden."""
    return _SECRET_IN_TEXT.sub(rf"\g<before>{_HIDDEN}", text)


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text
