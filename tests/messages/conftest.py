from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.settings import ROOT


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy of the project's templates, to be spoilt."""
    return Path(shutil.copytree(ROOT / "templates", tmp_path / "templates"))


@pytest.fixture
def spoil(templates: Path) -> Callable[[str, str, str], None]:
    """`spoil("winback/fr.html", old, new)`; the old words must be there."""

    def replace(name: str, old: str, new: str) -> None:
        path = templates / name
        before = path.read_text(encoding="utf-8")
        assert old in before
        path.write_text(before.replace(old, new), encoding="utf-8")

    return replace
