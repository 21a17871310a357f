"""Wrong input: one clear sentence on stderr, the right exit code, nothing half done."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from lifecycle.processes import free_port
from lifecycle.settings import ROOT
from sandbox.servers import serve
from sandbox.shopify import create_app
from tests.cli.conftest import Tern
from tests.platforms.goods import small_stock

SAMPLE = str(ROOT / "data/sample/order_lines.csv")


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def rows(home: Path, table: str) -> int:
    with create_engine(f"sqlite:///{home / 'data' / 'tern.db'}").connect() as connection:
        return int(connection.execute(text(f"select count(*) from {table}")).scalar_one())


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("caps.yaml", "limit: 2", "limit: 2, dayz: 3", 'unknown key "dayz"; did you mean "days"?'),
        (
            "campaigns.yaml",
            "dormant]",
            "dorment]",
            'winback.segments "dorment" is not defined; did you mean "dormant"?',
        ),
        ("campaigns.yaml", "template: vip", "template: vipp", "vipp"),
        ("campaigns.yaml", "channel: email", "channel: emial", 'vip_thanks.channel "emial" is not defined'),
    ],
)
def test_wrong_config(tern: Tern, home: Path, file: str, old: str, new: str, told: str) -> None:
    edit(home / "config" / file, old, new)
    result = tern("check")
    assert result.code == 2
    assert told in result.err and f"{file.partition('.')[0]}" in result.err
    assert "Traceback" not in result.err


def test_a_template_variable_that_does_not_exist(tern: Tern, home: Path) -> None:
    edit(home / "templates/winback/en.html", "customer.first_name", "customer.frist_name")
    result = tern("check")
    assert result.code == 2
    assert "templates/winback/en.html" in result.err
    assert "frist_name" in result.err and 'did you mean "first_name"?' in result.err


def test_a_database_that_is_not_migrated(tern: Tern) -> None:
    for words in (["segment"], ["plan", "winback"], ["audit"], ["import", "orders", SAMPLE, "--shop", "atlas"]):
        result = tern(*words)
        assert (result.code, result.err) == (1, "the database is empty; run: tern init\n")


def test_a_csv_with_a_missing_column(tern: Tern, home: Path) -> None:
    tern("init")
    path = home / "orders.csv"
    path.write_text("order_id,customer_id,orderd_at,currency,total\n1,c,2026-01-01T00:00:00Z,EUR,5\n")
    result = tern("import", "orders", str(path), "--shop", "atlas")
    assert result.code == 1
    assert str(path) in result.err and "ordered_at" in result.err and "orderd_at" in result.err
    assert rows(home, "orders") == rows(home, "quarantine") == 0


def test_too_many_bad_rows_store_nothing_but_the_quarantine(tern: Tern, home: Path) -> None:
    tern("init")
    path = home / "orders.csv"
    path.write_text(
        "order_id,customer_id,ordered_at,currency,total\n"
        + "".join(f"{n},c,2026-01-01T00:00:00Z,{'EUR' if n < 5 else 'EURO'},5\n" for n in range(1, 9))
    )
    result = tern("import", "orders", str(path), "--shop", "atlas")
    assert result.code == 1
    assert "4 of 8 rows (50.0 %) were rejected" in result.err and "config/shops.yaml" in result.err
    assert (rows(home, "orders"), rows(home, "customers"), rows(home, "quarantine")) == (0, 0, 4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["import", "orders", "/no/such.csv", "--shop", "atlas"], "no such file"),
        (["import", "orders", SAMPLE, "--shop", "atlass"], 'shop "atlass" is not defined; did you mean "atlas"?'),
        (["import", "orders", SAMPLE, "--shop", "atlas", "--map", "order_id"], "must be OURS=THEIRS"),
        (["plan", "winbak"], 'campaign "winbak" is not defined; did you mean "winback"?'),
        (["plan", "winback"], "run: tern segment"),
        (["apply", "99"], "there is no plan 99"),
        (["apply", "no-such-file.csv"], "neither the number of a plan nor a file"),
        (["report"], "there is no run to report yet"),
        (["report", "daily-x"], "daily-x"),
        (["segments", "export", "--out", "members.txt"], "members.txt"),
        (["segment", "--as-of", "yesterday"], "is not an instant"),
        (["frobnicate"], "No such command"),
    ],
    ids=" ".join,
)
def test_wrong_calls(tern: Tern, words: list[str], told: str) -> None:
    assert tern("init").code == 0
    result = tern(*words)
    assert result.code in (1, 2)
    assert told in result.err
    assert "Traceback" not in result.err


def test_an_unreachable_shop(tern: Tern, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tern("init")
    edit(home / "config/shops.yaml", "max_attempts: 5", "max_attempts: 1")
    monkeypatch.setenv("TERN_ATLAS_TOKEN", "x")
    monkeypatch.setenv("TERN_ATLAS_URL", f"http://127.0.0.1:{free_port()}")
    result = tern("pull", "atlas")
    assert result.code == 1
    assert "shop atlas" in result.err and "does not answer" in result.err
    assert rows(home, "pull_bookmarks") == rows(home, "landing_pages") == 0


def test_a_wrong_token(tern: Tern, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tern("init")
    with serve(create_app(small_stock(tmp_path).path, "atlas", "right")) as url:
        monkeypatch.setenv("TERN_ATLAS_URL", url)
        monkeypatch.setenv("TERN_ATLAS_TOKEN", "wrong-and-secret")
        result = tern("pull", "atlas")
    assert result.code == 1
    assert "TERN_ATLAS_TOKEN" in result.err and "wrong-and-secret" not in result.err
    assert rows(home, "pull_bookmarks") == 0


def test_no_token_at_all(tern: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    tern("init")
    monkeypatch.delenv("TERN_ATLAS_TOKEN", raising=False)
    result = tern("pull", "atlas")
    assert result.code == 2
    assert "TERN_ATLAS_TOKEN" in result.err


def test_a_mail_server_that_is_not_there(ready: Tern, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is applied, its messages wait in the ledger, and the command says so."""
    monkeypatch.setenv("TERN_SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("TERN_SMTP_PORT", str(free_port()))
    assert ready("plan", "vip_thanks").code == 0
    result = ready("apply", "1")
    assert result.code == 1
    assert "not everything could be sent" in result.err
    with create_engine(f"sqlite:///{home / 'data' / 'tern.db'}").connect() as connection:
        assert connection.execute(text("select distinct state from messages")).scalars().all() == ["reserved"]


def test_a_port_in_use(tern: Tern, tmp_path: Path) -> None:
    tern("init")
    with serve(create_app(small_stock(tmp_path).path, "atlas", "t")) as url:
        result = tern("up", "--tracking-port", url.rpartition(":")[2])
    assert result.code == 2
    assert "is in use" in result.err and "--tracking-port" in result.err
