"""What each command does and prints, on the sample files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lifecycle.cli.main import app
from lifecycle.settings import ROOT
from sandbox.mailbox import Mailbox, MailboxServer
from tests.cli.conftest import Tern

EXPORT = (
    "customer_id,shop_customer_ids,segments,recency_days,frequency,monetary_minor,currency,r,f,m,rfm_segment,"
    "first_order_at,last_order_at,orders_12m,spend_12m_minor"
)


def commands() -> list[list[str]]:
    names = [
        [command.name or command.callback.__name__] for command in app.registered_commands if command.callback
    ]
    assert len(names) >= 11
    return [*names, *(["segments", name] for name in ("export", "show", "moves", "predict"))]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(tern: Tern, command: list[str]) -> None:
    result = tern(*command, "--help")
    assert result.code == 0
    assert "Example:" in result.out


def test_init_twice(tern: Tern, home: Path) -> None:
    assert "Created the database" in tern("init").out
    assert "nothing to do" in tern("init").out
    assert (home / "data" / "tern.db").exists()
    other = f"sqlite:///{home / 'other.db'}"
    assert tern("init", "--database-url", other).code == 0
    assert (home / "other.db").exists()


def test_importing_the_same_file_again_changes_nothing(ready: Tern) -> None:
    result = ready("import", "orders", str(ROOT / "data/sample/order_lines.csv"), "--shop", "atlas", "--json")
    assert result.code == 0
    counts = json.loads(result.out)
    assert (counts["rows"], counts["lines"], counts["equal"], counts["new"], counts["guests"]) == (6, 7, 6, 0, 1)


def test_columns_of_other_names(ready: Tern, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("Invoice,Customer ID,When,currency,total\nX-1,c-1,2026-11-01T10:00:00Z,EUR,12.50\n")
    maps = ["--map", "order_id=Invoice", "--map", "customer_id=Customer ID", "--map", "ordered_at=When"]
    result = ready("import", "orders", str(path), "--shop", "atlas", *maps)
    assert result.code == 0, result.err
    assert "1 new" in result.out


def test_a_bad_row_goes_to_quarantine_and_the_rest_goes_on(ready: Tern, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    good = "".join(f"G-{n},c-1,2026-11-01T10:00:00Z,EUR,10\n" for n in range(30))
    path.write_text(
        f"order_id,customer_id,ordered_at,currency,total\n{good}B-1,c-1,2026-11-01T10:00:00Z,EURO,10\n"
    )
    result = ready("import", "orders", str(path), "--shop", "atlas")
    assert result.code == 0, result.err
    assert "30 new" in result.out and "1 rows in quarantine" in result.out


def test_export_of_any_instant_has_the_columns_of_the_contract(ready: Tern, tmp_path: Path) -> None:
    now, then = tmp_path / "now.csv", tmp_path / "then.csv"
    assert ready("segments", "export", "--out", str(now)).code == 0
    assert ready("segments", "export", "--as-of", "2026-03-01", "--out", str(then)).code == 0
    assert now.read_text().splitlines()[0] == EXPORT
    assert len(now.read_text().splitlines()) == 4
    assert [row["shop_customer_ids"] for row in csv.DictReader(then.read_text().splitlines())] == [
        "atlas:c-1",
        "atlas:c-2",
    ]


def test_plan_apply_why_audit_report(ready: Tern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "plan.csv"
    made = ready("plan", "vip_thanks", "--out", str(plan), "--json")
    counts = json.loads(made.out)
    assert counts["audience"] == sum(counts["counts"].values()) == 1
    with MailboxServer(tmp_path / "mail") as server:
        monkeypatch.setenv("TERN_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("TERN_SMTP_PORT", str(server.port))
        monkeypatch.setenv("TERN_SMTP_SECURITY", "none")
        applied = ready("apply", str(plan), "--approve", "Ada")
        assert applied.code == 0, applied.err
        again = ready("apply", str(counts["plan_id"]))
        assert again.code == 0 and "applied before" in again.out
    sent = Mailbox(tmp_path / "mail").count()
    assert sent == counts["counts"]["selected"] == 1
    assert "sent" in ready("why", "atlas:c-2").out
    assert "no customer" in ready("why", "atlas:nobody").err
    audited = ready("audit", "--json")
    assert audited.code == 0
    assert all(finding["passed"] for finding in json.loads(audited.out))
    for ending in ("html", "md", "csv"):
        out = tmp_path / f"report.{ending}"
        assert ready("report", "latest", "--out", str(out)).code == 0
        assert "vip" in out.read_text()


def test_no_address_ever_reaches_the_terminal(ready: Tern, tmp_path: Path) -> None:
    texts = [ready(*words) for words in (["plan", "winback"], ["why", "grace@example.net"], ["audit"])]
    assert all(result.code == 0 for result in texts)
    assert not [result for result in texts if "example." in result.out + result.err]
