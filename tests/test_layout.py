"""The house: imports point one way, and no file name shadows a module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.settings import ROOT

ROOMS = (
    "platforms", "quality", "customers", "segments", "planning", "messages", "channels", "ledger", "tracking",
    "reports",
)  # fmt: skip
"""From left to right, as the data goes; `cli` stands on top, everything else is the ground floor."""

MAY_IMPORT = {
    "lifecycle": {"lifecycle"},
    "tasks": {"lifecycle", "tasks"},
    "flows": {"lifecycle", "tasks", "flows"},
    "sandbox": {"lifecycle", "sandbox"},
}


def sources(folder: str) -> list[Path]:
    found = [path for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 1, f"{folder}/ holds no Python files: the test looks in the wrong place"
    return found


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            yield node.module or ""


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    ours = {"flows", "tasks", "lifecycle", "sandbox", "tests"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imported(path)
        if name.partition(".")[0] in ours - MAY_IMPORT[folder]
        or (folder == "lifecycle" and name.partition(".")[0] == "prefect")
    ]
    assert not wrong


def test_flows_hold_no_sql_no_frames_and_no_http() -> None:
    forbidden = {"sqlalchemy", "pandas", "httpx", "smtplib", "requests"}
    wrong = [
        f"{path.name} imports {name}"
        for path in sources("flows")
        for name in imported(path)
        if name.partition(".")[0] in forbidden
    ]
    assert not wrong


def test_no_room_knows_a_room_to_its_right() -> None:
    wrong = []
    for position, room in enumerate(ROOMS):
        for path in sources(f"lifecycle/{room}"):
            for name in imported(path):
                parts = name.split(".")
                target = parts[1] if parts[0] == "lifecycle" and len(parts) > 1 else ""
                if target == "cli" or (target in ROOMS and ROOMS.index(target) > position):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_only_quality_imports_great_expectations() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for folder in MAY_IMPORT
        for path in sources(folder)
        for name in imported(path)
        if name.startswith("great_expectations") and "quality" not in path.parts
    ]
    assert not wrong


def test_importing_all_of_lifecycle_never_loads_prefect_or_great_expectations() -> None:
    code = (
        "import importlib, pkgutil, sys, lifecycle\n"
        "names = [m.name for m in pkgutil.walk_packages(lifecycle.__path__, 'lifecycle.')\n"
        "         if '.migrations' not in m.name]\n"
        "assert len(names) > 20, names\n"
        "for name in names: importlib.import_module(name)\n"
        "loaded = {'prefect', 'great_expectations'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("folder", ["flows", "tasks"])
def test_no_file_shadows_a_module(folder: str) -> None:
    """Prefect's path entrypoints put flows/ first on sys.path; a flows/email.py would break the mail library."""
    taken = set(sys.stdlib_module_names) | {"config", "tasks", "flows", "lifecycle", "prefect", "sandbox"}
    names = {path.stem for path in sources(folder)} - {"__init__", "__main__"}
    assert not names & taken


@pytest.mark.parametrize("folder", ["config", "templates", "data"])
def test_numbers_words_and_rows_hold_no_python(folder: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", folder], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert tracked, f"{folder}/ is empty"
    assert not [name for name in tracked if name.endswith(".py")]


def test_the_product_names_no_stand_in() -> None:
    for folder in ("lifecycle", "tasks", "flows"):
        assert not [p for p in sources(folder) if "sandbox" in set(imported(p))]
