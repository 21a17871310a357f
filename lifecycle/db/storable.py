"""What shops send and databases refuse: NUL characters, half a surrogate pair, NaN in JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def storable_text(text: str | None) -> str | None:
    """`text` as both databases can keep it: without NUL, with `?` for half a surrogate pair."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def storable_json(value: Any) -> Any:
    """`value` as JSON that both databases can keep, with sorted keys; what JSON does not know (Decimal, date) as
    text."""
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(storable_text(str(key))): storable_json(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return storable_json(dataclasses.asdict(value))
    return storable_text(str(value))
