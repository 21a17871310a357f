"""The commands that the README shows do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lifecycle.settings import ROOT
from tests.cli.conftest import Tern

README = (ROOT / "README.md").read_text()


def test_the_files_it_imports(tern: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.findall(r"^tern (import .*)$", README, re.MULTILINE)
    assert len(shown) == 3
    monkeypatch.chdir(ROOT)
    assert tern("init").code == 0
    for words in shown:
        result = tern(*shlex.split(words))
        assert result.code == 0, result.err
        assert ", 0 rejected" in result.out


def test_the_mistake_it_shows(tern: Tern, home: Path) -> None:
    (told,) = re.findall(r"^\$ tern check\n(.*)$", README, re.MULTILINE)
    path = home / "config" / "campaigns.yaml"
    path.write_text(path.read_text().replace("at_risk, dormant]", "at_risk, dorment]"))
    result = tern("check")
    assert (result.code, result.err.strip()) == (2, told)


def test_every_command_of_its_table_exists(tern: Tern) -> None:
    shown = re.findall(r"^\| `tern ([a-z-]+)(?: (export|show|moves|predict)\b)?", README, re.MULTILINE)
    assert len(shown) >= 24
    for words in shown:
        assert tern(*filter(None, words), "--help").code == 0, words


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
