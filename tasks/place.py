"""Where a task works: opened once per process and settings, because every batch asks."""

from __future__ import annotations

import os
from functools import lru_cache

from lifecycle.errors import PlatformBusy
from lifecycle.settings import load_environment
from lifecycle.workplace import Workplace, open_workplace


def workplace() -> Workplace:
    """The workplace of the present environment and the configuration as it stands on disk now."""
    folder = load_environment().config_dir
    changed = max((path.stat().st_mtime_ns for path in folder.glob("*.yaml")), default=0)
    return _opened(tuple(sorted(item for item in os.environ.items() if item[0].startswith("TERN_"))), changed)


@lru_cache(maxsize=4)
def _opened(_env: tuple[tuple[str, str], ...], _changed: int) -> Workplace:
    return open_workplace()


def is_busy(_task: object, _run: object, state: object) -> bool:
    """Prefect's retry condition: only what may work a minute later is tried again."""
    try:
        state.result()  # type: ignore[attr-defined]
    except PlatformBusy:
        return True
    except Exception:  # noqa: BLE001 (any other failure is final; it is raised again by Prefect itself)
        return False
    return False
