"""`tern plan`, `tern apply`, `tern why`, `tern audit`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lifecycle.cli.common import AsJson, AsOf, console, notes, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from lifecycle.errors import AuditFailed, ChannelDown, UsageError
from lifecycle.ledger import audit as auditing
from lifecycle.ledger import drain as draining
from lifecycle.ledger.expire import expire
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import Reservation, reserve
from lifecycle.ledger.sending import send_batch, wire_dir
from lifecycle.messages.links import prepare_links
from lifecycle.messages.samples import add_samples, approved_locales, content_hash, content_hash_now
from lifecycle.planning import approval, files, guards, why
from lifecycle.planning.plan import load_plan, make_plan
from lifecycle.planning.records import Plan
from lifecycle.reports.files import write_text
from lifecycle.workplace import Workplace, open_workplace

_SHOWN = 12
"""Digits of a hash that are shown, and that name it."""


def plan(
    campaign: Annotated[str, typer.Argument(help="Name in config/campaigns.yaml.")],
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(help="Write every verdict to this .csv or .jsonl file.")] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a sample of each language and shop there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Freeze who gets a campaign and why everybody else does not. Sends nothing.

    Example: `tern plan winback --out winback.csv --samples winback`
    """
    if out is not None:
        files.check_ending(out)
    place, now = open_workplace(), utc_now()
    content = content_hash(place.environment.templates_dir, place.config.campaign(campaign))
    with booked(place.engine, "plan", parameters={"campaign": campaign}, as_of=as_of or now) as run:
        drafted = make_plan(
            place.engine,
            place.config,
            campaign,
            as_of=as_of or now,
            now=now,
            run_id=run.run_id,
            content_hash=content,
            approved=approved_locales(
                place.config, place.environment.templates_dir, place.config.campaign(campaign)
            ),
        )
        made = add_samples(place.engine, place.config, place.environment, drafted.plan_id)
        run.say(made.sentence())
    if out is not None:
        files.write_plan(place.engine, made.plan_id, out)
    if samples is not None:
        _write_samples(made, samples)
    if as_json:
        return print_json(made.as_dict())
    return _show(made, place.config.base_currency)


def _show(made: Plan, currency: str) -> None:
    console.print(made.sentence())
    if made.already_applied:
        return
    print_table(guards.verdict_rows(made))
    print_table(guards.slot_rows(made, currency), title="Quotas")
    subjects = [row | {"subject": escape(row["subject"])} for row in guards.sample_rows(made)]
    print_table(subjects, title="Subjects")
    if cost := Decimal((made.summary or {}).get("cost", 0)):
        console.print(f"It costs {cost} {currency}.")
    for note in guards.notes(made):
        console.print(f"Note: {escape(note)}.")
    for reason in made.needs_approval:
        console.print(f"[yellow]Needs an approval:[/yellow] {escape(reason)}.")
    seen = f" --approve NAME --hash {made.hash[:_SHOWN]}" if made.needs_approval else ""
    console.print(
        f"Plan {made.plan_id} has the hash {made.hash[:_SHOWN]}. Nothing was sent. To send it: "
        f"tern apply {made.plan_id}{seen}"
    )


def _write_samples(made: Plan, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: no folder for samples can be made there: {error.strerror}") from None
    found = (made.summary or {}).get("samples", ())
    for sample in found:
        name = "-".join(filter(None, (sample["locale"], sample["shop"], sample["country"])))
        if sample["html"]:
            write_text(folder / f"{name}.html", sample["html"])
        write_text(folder / f"{name}.txt", f"{sample['subject']}\n\n{sample['text']}")
    notes.print(f"Wrote {len(found)} samples to {folder}.")


def apply(
    plan: Annotated[str, typer.Argument(help="A plan's number, or the file that `tern plan --out` wrote.")],
    approve: Annotated[str | None, typer.Option(metavar="NAME", help="Who approves it.")] = None,
    hash: Annotated[
        str | None, typer.Option(help="Of the plan that was looked at; its first 12 digits will do.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send exactly what a plan selected and still holds: nobody new, nobody who has since withdrawn.

    Example: `tern apply 12 --approve "Ada" --hash 4f1c09ad63be`
    """
    if hash is not None and approve is None:
        raise UsageError("--hash says what was approved; say by whom too: --approve NAME")
    place = open_workplace()
    made = load_plan(place.engine, _plan_id(place, plan))
    with booked(place.engine, "apply", parameters={"plan_id": made.plan_id}, as_of=made.as_of) as run:
        run.summary |= {"campaign": made.campaign, "plan_id": made.plan_id}
        if approve is not None:
            approval.approve(
                place.engine, made.plan_id, name=approve, now=utc_now(), hash=_approved_hash(made, hash)
            )
        recover(place.engine, place.config, now=utc_now(), wire_dir=wire_dir(place.environment))
        expire(place.engine, now=utc_now(), hours=place.config.expire_hours)
        reservation = _reserve(place, made.plan_id, run.run_id)
        run.say(reservation.sentence())
        if not as_json:
            console.print(reservation.sentence())
        result = draining.total(_drain(place, made.plan_id))
        run.say(f"{made.campaign}: {result.sentence()}")
    if as_json:
        reserved = reservation.as_dict()
        dropped = {"no_longer_selected": reserved.pop("revised")}  # the result has a number of that name
        return print_json({"run_id": run.run_id, **reserved, **dropped, **result.as_dict()})
    console.print(result.sentence())
    print_table([{"messages": count, "not accepted": why} for why, count in result.reasons.most_common(20)])
    if result.problem:
        raise ChannelDown(f"not everything could be sent: {result.problem}; mend it and apply the plan again")
    return None


def _approved_hash(made: Plan, given: str | None) -> str:
    """The whole of a hash of which the digits shown were given."""
    if given is None or (len(given) >= _SHOWN and made.hash.startswith(given.lower())):
        return made.hash
    return given


def _reserve(place: Workplace, plan_id: int, run_id: str) -> Reservation:
    content = content_hash_now(place.engine, place.environment.templates_dir, plan_id)
    prepare_links(place.engine, place.config, place.environment, plan_id)
    return reserve(
        place.engine,
        place.config,
        plan_id,
        now=utc_now(),
        secret=place.environment.secret,
        content_hash=content,
        run_id=run_id,
    )


def _plan_id(place: Workplace, plan: str) -> int:
    if plan.isdecimal():
        return int(plan)
    if not Path(plan).exists():
        raise UsageError(f'"{plan}" is neither the number of a plan nor a file; see: tern plan --help')
    return files.read_plan(place.engine, Path(plan))


def _drain(place: Workplace, plan_id: int) -> list[draining.BatchResult]:
    batches = draining.open_batches(place.engine, now=utc_now(), plan_id=plan_id)
    return [send_batch(place, batch) for batch in batches]


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
