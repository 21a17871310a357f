"""`tern plan` and `tern apply`: what is shown before a plan is sent, and what stops it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, func, select, update

from lifecycle.cli import main
from lifecycle.clock import utc_now
from lifecycle.db.engine import open_database, reading, writing
from lifecycle.db.schema import approvals, customers, messages, plans, verdicts
from lifecycle.planning.plan import load_plan
from lifecycle.settings import ROOT
from sandbox.mailbox import Mailbox, MailboxServer
from tests.cli.conftest import Tern


def configure(home: Path, file: str, **values: Any) -> None:
    """Replace some keys of a file in the test's own config."""
    path = home / "config" / f"{file}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the sample files and their segments: to be copied, because filling it takes seconds."""
    folder, sample = tmp_path_factory.mktemp("filled"), ROOT / "data" / "sample"
    kinds = {"customers": "customers", "orders": "order_lines", "consents": "consents"}
    imports = [["import", kind, str(sample / f"{name}.csv"), "--shop", "atlas"] for kind, name in kinds.items()]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TERN_DATA", str(folder))
        patched.delenv("TERN_DATABASE_URL", raising=False)
        for words in (["init"], *imports, ["segment"]):
            patched.setattr(sys, "argv", ["tern", *words])
            with pytest.raises(SystemExit) as ended:
                main.run()
            assert not ended.value.code
    return folder


@pytest.fixture
def ready(tern: Tern, home: Path, filled: Path) -> Tern:
    """`tern` with that data. Winback is due and the other campaign is not, so that nobody's slot goes to that."""
    shutil.copytree(filled, home / "data")
    campaigns = yaml.safe_load((home / "config" / "campaigns.yaml").read_text())["campaigns"]
    for each in campaigns:
        if each["name"] != "winback":
            each["schedule"] = {"dates": ["2020-01-01"]}
    configure(home, "campaigns", campaigns=campaigns, guards={})
    configure(home, "caps", quiet_hours=None)
    return tern


@pytest.fixture
def engine(ready: Tern, home: Path) -> Iterator[Engine]:
    """The database that `ready` has filled."""
    engine = open_database(f"sqlite:///{home / 'data' / 'tern.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    with MailboxServer(tmp_path / "mail") as server:
        monkeypatch.setenv("TERN_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("TERN_SMTP_PORT", str(server.port))
        monkeypatch.setenv("TERN_SMTP_SECURITY", "none")
        yield Mailbox(tmp_path / "mail")


@pytest.fixture
def guarded(ready: Tern, home: Path) -> None:
    """Every message needs an approval."""
    configure(home, "campaigns", guards={"approve_over": 0})


def count(engine: Engine, table: Any) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_plan_shows_what_is_to_be_looked_at(ready: Tern, engine: Engine, guarded: None, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "samples"
    made = ready("plan", "winback", "--samples", str(folder))
    assert made.code == 0, made.err
    plan = load_plan(engine, 1)
    assert made.out.splitlines()[0] == plan.sentence()
    for told in (
        "Subjects", "it has been a while", "1 messages are more than guards.approve_over 0.",
        f"Plan 1 has the hash {plan.hash[:12]}. Nothing was sent. To send it: tern apply 1 --approve NAME --hash "
        f"{plan.hash[:12]}",
    ):  # fmt: skip
        assert told in made.out
    (page,) = folder.glob("*.html")
    assert "<html" in page.read_text() and "unsubscribe.invalid" in page.read_text()
    subject, empty, *_ = page.with_suffix(".txt").read_text().splitlines()
    assert "it has been a while" in subject and empty == ""


def test_subjects_that_look_like_markup_are_shown_as_they_are(ready: Tern, home: Path) -> None:
    path = home / "templates" / "winback" / "en.html"
    path.write_text(path.read_text().replace("has been a while", "is [red]sale[/red] [/]"))
    assert "is [red]sale[/red] [/]" in ready("plan", "winback").out


def test_without_guards_no_name_is_asked_for(ready: Tern, engine: Engine) -> None:
    assert ready("plan", "winback").out.splitlines()[-1].endswith("To send it: tern apply 1")


def test_the_change_to_the_last_run_is_told(ready: Tern, engine: Engine, mailbox: Mailbox) -> None:
    assert ready("plan", "winback").code == 0
    assert ready("apply", "1").code == 0
    with writing(engine) as connection:
        connection.execute(update(plans).values(occurrence="2026-01-01"))
    told = ready("plan", "winback").out
    assert "since 2026-01-01" in told and "+1" in told and "-1" in told  # the cap of winback is full


def test_json_of_a_plan_has_what_was_found(ready: Tern, guarded: None) -> None:
    found = json.loads(ready("plan", "winback", "--json").out)
    assert len(found["hash"]) == len(found["content_hash"]) == len(found["definition_hash"]) == 64
    assert found["summary"]["needs_approval"] and found["summary"]["samples"][0]["recipients"] == 1


def test_a_folder_that_cannot_be_made(ready: Tern, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = ready("plan", "winback", "--samples", str(tmp_path / "file"))
    assert result.code == 2
    assert "no folder for samples can be made there" in result.err and "Traceback" not in result.err


def test_without_the_approval_it_needs_nothing_is_sent(
    ready: Tern, engine: Engine, guarded: None, mailbox: Mailbox
) -> None:
    ready("plan", "winback")
    refused = ready("apply", "1")
    assert refused.code == 1
    assert "plan 1 needs an approval" in refused.err and "tern apply 1 --approve NAME" in refused.err
    assert (mailbox.count(), count(engine, messages)) == (0, 0)

    applied = ready("apply", "1", "--approve", "Ada", "--hash", load_plan(engine, 1).hash[:12])
    assert applied.code == 0, applied.err
    assert applied.out.splitlines() == ["plan 1: 1 messages reserved", "1 accepted"]
    assert mailbox.count() == 1
    with reading(engine) as connection:
        assert connection.execute(select(plans.c.approved_by)).scalar_one() == "Ada"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--approve", "Ada", "--hash", "f" * 12], 1, "the approval is for ffffffffffff…; look at the plan again"),
        (["--approve", "Ada", "--hash", "f" * 64], 1, "the approval is for ffffffffffff…; look at the plan again"),
        (["--approve", "Ada", "--hash", ""], 1, "look at the plan again"),
        (["--approve", " "], 2, "an approval needs the name of who gives it"),
        (["--hash", "f" * 12], 2, "--hash says what was approved; say by whom too: --approve NAME"),
    ],
)
def test_approvals_that_are_none(
    ready: Tern, engine: Engine, guarded: None, mailbox: Mailbox, words: list[str], code: int, told: str
) -> None:
    ready("plan", "winback")
    refused = ready("apply", "1", *words)
    assert refused.code == code
    assert told in refused.err and "Traceback" not in refused.err
    assert (mailbox.count(), count(engine, messages), count(engine, approvals)) == (0, 0, 0)


def test_fewer_digits_than_were_shown_are_not_enough(ready: Tern, engine: Engine, guarded: None) -> None:
    ready("plan", "winback")
    refused = ready("apply", "1", "--approve", "Ada", "--hash", load_plan(engine, 1).hash[:11])
    assert refused.code == 1 and count(engine, approvals) == 0


def test_a_file_is_approved_as_it_is(
    ready: Tern, engine: Engine, guarded: None, mailbox: Mailbox, tmp_path: Path
) -> None:
    path = tmp_path / "plan.jsonl"
    ready("plan", "winback", "--out", str(path))
    kept = path.read_text()
    path.write_text(
        kept.replace('"selected"', '"suppressed"', 2).replace('"verdict": "suppressed"', '"verdict": ""')
    )
    changed = ready("apply", str(path), "--approve", "Ada")
    assert changed.code == 1 and "the file was changed after it was written" in changed.err
    assert count(engine, approvals) == mailbox.count() == 0
    path.write_text(kept)
    assert ready("apply", str(path), "--approve", "Ada").code == 0
    with reading(engine) as connection:
        given = connection.execute(select(approvals.c.hash)).scalar_one()
    assert given == json.loads(kept.splitlines()[0])["hash"]
    assert mailbox.count() == 1


def shift(**delta: float) -> Callable[[Engine, Path], None]:
    """As if the plan had been made so much later."""

    def spoil(engine: Engine, _home: Path) -> None:
        with writing(engine) as connection:
            connection.execute(update(plans).values(created_at=utc_now() + timedelta(**delta)))

    return spoil


def other_words(_engine: Engine, home: Path) -> None:
    path = home / "templates" / "layouts" / "mail.html"
    path.write_text(path.read_text() + "\n")


def other_verdicts(engine: Engine, _home: Path) -> None:
    with writing(engine) as connection:
        connection.execute(update(verdicts).values(verdict="selected"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (shift(hours=-25), "more than guards.max_age_hours 24 ago; make a new one: tern plan winback"),
        (shift(minutes=10), "it has jumped back; set it, nothing is sent before"),
        (other_words, "the templates of plan 1 were changed after it was made"),
        (other_verdicts, "plan 1 was changed after it was made"),
    ],
)
def test_what_may_not_be_sent_any_more(
    ready: Tern,
    engine: Engine,
    mailbox: Mailbox,
    home: Path,
    spoil: Callable[[Engine, Path], None],
    told: str,
) -> None:
    ready("plan", "winback")
    spoil(engine, home)
    refused = ready("apply", "1", "--approve", "Ada")
    assert refused.code == 1
    assert told in refused.err and "Traceback" not in refused.err
    assert (mailbox.count(), count(engine, messages)) == (0, 0)


def test_who_no_longer_holds_is_told_by_reason(ready: Tern, engine: Engine, mailbox: Mailbox) -> None:
    ready("plan", "winback")
    with writing(engine) as connection:
        connection.execute(update(customers).values(email=None, email_key=None, email_hash=None))
    applied = ready("apply", "1", "--json")
    assert applied.code == 0, applied.err
    found = json.loads(applied.out)
    assert (found["reserved"], found["no_longer_selected"], found["waiting"], found["accepted"]) == (
        0, {"no_address": 1}, 0, 0,
    )  # fmt: skip
    assert mailbox.count() == 0


def test_who_sleeps_is_held_until_morning(ready: Tern, engine: Engine, mailbox: Mailbox, home: Path) -> None:
    """Quiet all day but for a minute that is not now."""
    open_at = (utc_now() + timedelta(hours=12)).strftime("%H:%M")
    shut_at = (utc_now() + timedelta(hours=12, minutes=1)).strftime("%H:%M")
    configure(home, "caps", quiet_hours=f"{shut_at}-{open_at}")
    with writing(engine) as connection:
        connection.execute(update(customers).values(timezone="UTC"))
    assert "(1 of them when their quiet hours end)" in ready("plan", "winback").out
    applied = ready("apply", "1")
    assert applied.code == 0, applied.err
    assert "1 of them wait until " in applied.out and f"{open_at} UTC, when quiet hours end" in applied.out
    assert mailbox.count() == 0 and count(engine, messages) == 1
