"""TOML values as the types a settings dataclass declares, and back."""

import difflib
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

NOTHING = object()
"""What does not fit a type."""

_URL_PASSWORD = re.compile(r"(?<=://)([^/:@\s]*):([^/@\s]+)@")


@cache
def field_types(settings_type: type) -> dict[str, object]:
    """Return the declared type of each field of a dataclass."""
    hints = get_type_hints(settings_type)
    return {f.name: hints[f.name] for f in fields(settings_type) if f.init}


@cache
def required_fields(settings_type: type) -> tuple[str, ...]:
    """Return the fields of a dataclass that have no default."""
    given = [f for f in fields(settings_type) if f.init]
    return tuple(f.name for f in given if f.default is f.default_factory is MISSING)


def redact(text: str) -> str:
    """Return a text with passwords inside URLs hidden."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def has_password(text: str) -> bool:
    """Tell whether a URL in the text carries a password."""
    return bool(_URL_PASSWORD.search(text))


def from_text(raw: str, wanted: object) -> object:
    """Read an environment variable: text where text is wanted, else as TOML would read it."""
    if as_type(raw, wanted) is not NOTHING:
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in raw.split(",")] if get_origin(wanted) is tuple else raw


def as_type(value: object, wanted: object) -> object:
    """Return a TOML value as the type a field declares; `NOTHING` where it does not fit."""
    origin, arms = get_origin(wanted), get_args(wanted)
    made: object = NOTHING
    if origin in (Union, types.UnionType):
        fitting = (as_type(value, arm) for arm in arms)
        made = next((one for one in fitting if one is not NOTHING), NOTHING)
    elif origin is Literal:
        made = value if value in arms else NOTHING
    elif origin is tuple and isinstance(value, list):
        every = [as_type(item, arms[0]) for item in value]
        made = NOTHING if NOTHING in every else tuple(every)
    elif origin is not None and isinstance(value, dict):
        each = {key: as_type(item, arms[1]) for key, item in value.items()}
        made = NOTHING if NOTHING in each.values() else each
    elif is_dataclass(wanted) and isinstance(wanted, type) and isinstance(value, dict):
        known = field_types(wanted)
        parts = {key: as_type(item, known.get(key)) for key, item in value.items()}
        made = NOTHING if NOTHING in parts.values() else wanted(**parts)
    elif isinstance(wanted, type):
        made = _as_plain(value, wanted)
    return made


def _as_plain(value: object, wanted: type) -> object:
    made: object = NOTHING
    if isinstance(value, bool):
        made = value if wanted is bool else NOTHING
    elif wanted is float and isinstance(value, int | float):
        made = float(value)
    elif wanted is Path and isinstance(value, str):
        made = Path(value).expanduser()
    elif issubclass(wanted, Enum) and isinstance(value, str):
        by_name = {member.name.lower(): member for member in wanted}
        made = by_name.get(value.lower(), NOTHING)
    elif (wanted in (str, int) or is_dataclass(wanted)) and isinstance(value, wanted):
        made = value
    return made


_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def type_name(wanted: object) -> str:
    """Return a type in plain words."""
    arms = get_args(wanted)
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, arms))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(type_name(arm) for arm in arms if arm is not type(None))
    if get_origin(wanted) is tuple:
        return f"a list ({type_name(arms[0])} each)"
    if get_origin(wanted) is not None:
        return "a table"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return "one of " + ", ".join(member.name.lower() for member in wanted)
    return _TYPE_NAMES.get(cast(type, wanted), "a path" if wanted is Path else "a table")


def type_remedy(value: object, wanted: object) -> str:
    """Return what to do about a value of the wrong type."""
    if isinstance(value, str) and wanted in (int, float, bool):
        return "write it without quotes"
    if isinstance(value, str) and get_origin(wanted) is Literal:
        near = difflib.get_close_matches(value, list(map(str, get_args(wanted))), n=1)
        return f"did you mean {near[0]}?" if near else "choose one of these"
    return "write it in this form"


def to_toml(value: object) -> str:
    """Return a value as TOML, passwords inside URLs hidden."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return f'"{value.name.lower()}"'
    if isinstance(value, str | Path):
        return '"' + redact(str(value)).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }"
    if is_dataclass(value):
        # What is kept out of a settings' repr is a secret.
        every = ((f, getattr(value, f.name)) for f in fields(value))
        shown = ((f.name, "(hidden)" if item and not f.repr else item) for f, item in every)
        return "{ " + ", ".join(f"{name} = {to_toml(item)}" for name, item in shown) + " }"
    return str(value)
