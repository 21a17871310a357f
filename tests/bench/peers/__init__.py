"""What Tern's segments are measured against: plain pandas, and the public packages in an environment of their own.
Each runs as a process of its own that reads the store itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from lifecycle.settings import ROOT
from tests.bench.figures import Figure

PACKAGES = {
    "lifetimes": "lifetimes summary_data_from_transaction_data",
    "pymc_summary": "pymc-marketing rfm_summary",
    "pymc_segments": "pymc-marketing rfm_segments",
}
_SCRIPT = Path(__file__).with_name("run.py")
_PACKAGES_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def plain_pandas(
    what: str, store: Engine, rows: int, as_of: datetime, *, reader: str = "", days: int = 0
) -> tuple[Figure, Mapping[str, Any]]:
    """`reader`: how rows leave the database; none: as pandas reads from it. `days`: how many days of the year
    before to compute instead, after reading once; the figure is then scaled to 365."""
    found = _run(sys.executable, "pandas", store, as_of, reader=reader, days=str(days))
    compute = found["compute"] * (365 / days if days else 1)
    return _figure(what, rows, found, compute), found


def public_packages(store: Engine, rows: int, as_of: datetime, sums: Mapping[str, int]) -> list[Figure]:
    """None where they are not installed, which stderr says, nor from another store than SQLite, which they read
    without a driver. Raises where one counts another number of days with an order, or other money."""
    if store.dialect.name != "sqlite" or not _installed():
        return []
    figures = []
    for name, what in PACKAGES.items():
        found = _run(str(_PACKAGES_PYTHON), name, store, as_of)
        if any(found[each] != sums[each] for each in ("customers", "order_days", "monetary_minor")):
            raise RuntimeError(f"{what} finds {found}, Tern {dict(sums)}")
        label = f"{what} {found['version']}, r f m alone, nothing written"
        figures.append(_figure(label, rows, found, found["compute"]))
    return figures


def _figure(what: str, rows: int, found: Mapping[str, Any], compute: float) -> Figure:
    seconds = found["read"] + compute
    label = f"{what} ({100 * found['read'] / seconds:.0f} % of it reading)"
    return Figure(label, rows, seconds, peak_mb=found["peak_mb"])


@cache
def _installed() -> bool:
    try:
        subprocess.run([_PACKAGES_PYTHON, "-c", "import lifetimes"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"without the public packages: {error}; make .venv-peers/ready installs them", file=sys.stderr)
        return False
    return True


def _run(python: str, method: str, store: Engine, as_of: datetime, **options: str) -> Mapping[str, Any]:
    url = store.url.render_as_string(hide_password=False)
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [python, "-W", "ignore", str(_SCRIPT), method, url, as_of.isoformat(), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{method} failed: {done.stderr[-2_000:]}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
