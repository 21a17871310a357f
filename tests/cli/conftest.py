"""The command `tern`, in this process: exit code, stdout and stderr."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lifecycle.cli import main
from lifecycle.settings import ROOT


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Tern = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, with the project's config and templates copied for it to break."""
    for name in ("config", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
        monkeypatch.setenv(f"TERN_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("TERN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TERN_DATABASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def tern(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tern:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["tern", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def ready(tern: Tern) -> Tern:
    """`tern` with a database that holds the sample files and its segments."""
    sample = ROOT / "data" / "sample"
    assert tern("init").code == 0
    for kind, name in (("customers", "customers"), ("orders", "order_lines"), ("consents", "consents")):
        result = tern("import", kind, str(sample / f"{name}.csv"), "--shop", "atlas")
        assert result.code == 0, result.err
    assert tern("segment").code == 0
    return tern
