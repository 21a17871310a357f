"""`tern plan`, `tern apply`, `tern why`, `tern audit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lifecycle.channels import open_channel
from lifecycle.cli.common import AsJson, AsOf, console, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from lifecycle.errors import AuditFailed, ChannelDown, UsageError
from lifecycle.ledger import audit as auditing
from lifecycle.ledger import drain as draining
from lifecycle.ledger.expire import expire
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.compose import Composer
from lifecycle.messages.links import prepare_links
from lifecycle.planning import files, why
from lifecycle.planning.plan import load_plan, make_plan
from lifecycle.workplace import Workplace, open_workplace


def plan(
    campaign: Annotated[str, typer.Argument(help="Name in config/campaigns.yaml.")],
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(help="Write every verdict to this .csv or .jsonl file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Freeze who gets a campaign and why everybody else does not. Sends nothing.

    Example: `tern plan winback --out winback.csv`
    """
    if out is not None:
        files.check_ending(out)
    place, now = open_workplace(), utc_now()
    with booked(place.engine, "plan", parameters={"campaign": campaign}, as_of=as_of or now) as run:
        made = make_plan(place.engine, place.config, campaign, as_of=as_of or now, now=now, run_id=run.run_id)
        run.say(made.sentence())
    if out is not None:
        files.write_plan(place.engine, made.plan_id, out)
    if as_json:
        return print_json(made.as_dict())
    console.print(made.sentence())
    print_table([{"verdict": verdict, "people": people} for verdict, people in made.counts.items()])
    console.print(f"Nothing was sent. To send it: tern apply {made.plan_id}")
    return None


def apply(
    plan: Annotated[str, typer.Argument(help="A plan's number, or the file that `tern plan --out` wrote.")],
    approve: Annotated[str | None, typer.Option(metavar="NAME", help="Who approves it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send exactly what a plan selected and still holds: nobody new, nobody who has since withdrawn.

    Example: `tern apply 12 --approve "Ada"`
    """
    place = open_workplace()
    made = load_plan(place.engine, _plan_id(place, plan))
    with booked(place.engine, "apply", parameters={"plan_id": made.plan_id}, as_of=made.as_of) as run:
        run.summary |= {"campaign": made.campaign, "plan_id": made.plan_id}
        recover(place.engine, now=utc_now())
        expire(
            place.engine, now=utc_now(), hours=min(each.expire_hours for each in place.config.channels.values())
        )
        prepare_links(place.engine, place.config, place.environment, made.plan_id)
        reservation = reserve(
            place.engine,
            place.config,
            made.plan_id,
            now=utc_now(),
            secret=place.environment.secret,
            approved_by=approve,
            run_id=run.run_id,
        )
        result = draining.total(_drain(place, made.plan_id))
        run.say(f"{made.campaign}: {result.sentence()}")
    if as_json:
        return print_json({"run_id": run.run_id, **reservation.as_dict(), **result.as_dict()})
    console.print(reservation.sentence())
    console.print(result.sentence())
    if result.problem:
        raise ChannelDown(f"not everything could be sent: {result.problem}; mend it and apply the plan again")
    return None


def _plan_id(place: Workplace, plan: str) -> int:
    if plan.isdecimal():
        return int(plan)
    if not Path(plan).exists():
        raise UsageError(f'"{plan}" is neither the number of a plan nor a file; see: tern plan --help')
    return files.read_plan(place.engine, Path(plan))


def _drain(place: Workplace, plan_id: int) -> list[draining.BatchResult]:
    batches = draining.open_batches(place.engine, now=utc_now(), plan_id=plan_id)
    if not batches:
        return []
    settings = place.config.channel(batches[0].channel)
    composer = Composer(place.engine, place.config, place.environment, plan_id)
    with open_channel(settings, os.environ) as channel:
        return [
            draining.drain(
                place.engine,
                batch,
                compose=composer.compose,
                channel=channel,
                settings=settings,
                secret=place.environment.secret,
                clock=utc_now,
            )
            for batch in batches
        ]


def explain(
    customer: Annotated[str, typer.Argument(help="Our number, SHOP:PLATFORM_ID, or an e-mail address.")],
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Why somebody got a message, or did not: one sentence per campaign, newest first.

    Example: `tern why atlas:4711 --campaign winback`
    """
    place = open_workplace()
    sentences = why.why(place.engine, customer, campaign=campaign, as_of=as_of or utc_now())
    if as_json:
        return print_json({"customer": customer, "sentences": sentences})
    console.print("\n".join(sentences))
    return None


def audit(as_json: AsJson = False) -> None:
    """Check the promises on the live ledger. Exit code 1 when one is broken.

    Example: `tern audit`
    """
    place = open_workplace()
    findings = auditing.audit(place.engine, data_dir=place.environment.data_dir, now=utc_now())
    broken = [finding for finding in findings if not finding.passed]
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            mark = "[green]holds[/green] " if finding.passed else "[red]BROKEN[/red]"
            console.print(f"{mark} {finding.invariant}: {finding.sentence}")
    if broken:
        raise AuditFailed(f"{len(broken)} of {len(findings)} checks failed")


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(apply)
    app.command("why")(explain)
    app.command()(audit)
