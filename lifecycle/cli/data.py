"""`tern import`, `tern pull`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lifecycle.cli.common import AsJson, Since, Until, console, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.customers.intake import take_in, take_in_rows
from lifecycle.db.runs import booked
from lifecycle.errors import UsageError
from lifecycle.platforms import ENTITIES, landing, open_platform
from lifecycle.platforms.files import read_file
from lifecycle.quality.gate import check_fetched, check_rows
from lifecycle.workplace import open_workplace


class Kind(StrEnum):
    orders = "orders"
    customers = "customers"
    consents = "consents"


def import_file(
    kind: Annotated[Kind, typer.Argument(help="What the file holds.")],
    file: Annotated[Path, typer.Argument(help="CSV, Excel or Parquet.")],
    shop: Annotated[str, typer.Option(help="The shop in config/shops.yaml that the rows belong to.")],
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COL=COL", help="Our column name = the file's; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take in a file. The same file again changes nothing; rows that fail a check go to quarantine.

    *orders*: one row per order (`order_id, customer_id, ordered_at, currency, total`) or, when there is a
    `sku` column, one per order line (`…, sku, quantity, unit_price`). More in the README.

    Example: `tern import orders data/sample/order_lines.csv --shop atlas`
    """
    place, now = open_workplace(), utc_now()
    settings, source, quality = place.config.shop(shop), str(file), place.config.shops_file.quality
    batches = list(read_file(file, kind.value, settings, mapping=_mapping(rename or ())))
    parameters = {"kind": kind.value, "shop": shop}
    with booked(place.engine, "import", parameters=parameters) as run:
        gate = check_rows(
            place.engine,
            shop,
            kind.value,
            batches,
            source=source,
            max_rejected_share=quality.max_rejected_share,
            tolerated_rows=quality.tolerated_rows,
            now=now,
            run_id=run.run_id,
        )
        taken = take_in_rows(
            place.engine,
            place.config,
            shop,
            batches,
            gate,
            secret=place.environment.secret,
            now=now,
            run_id=run.run_id,
            source=source,
        )
        run.say(taken.sentence())
        run.summary[kind.value] = taken.counts()
    if as_json:
        return print_json({"file": source, "shop": shop, "entity": kind.value, **taken.counts()})
    console.print(taken.sentence())
    for expectation, rows in taken.reasons.items():
        console.print(f"  {rows:,} rows in quarantine: {expectation}")
    return None


def _mapping(pairs: Iterable[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UsageError(f'--map "{pair}" must be OURS=THEIRS, for example --map order_id=Invoice')
        mapping[ours] = theirs
    return mapping


def pull(shop: str, since: Since = None, until: Until = None, as_json: AsJson = False) -> None:
    """Pull what changed at a shop, check it, take it in. Without --since it goes on from the bookmark.

    Example: `tern pull atlas`
    """
    place, results = open_workplace(), []
    settings, pulling = place.config.shop(shop), place.config.shops_file.pulling
    quality = place.config.shops_file.quality
    if settings.platform == "file":
        raise UsageError(f'shop "{shop}" lives in files; use: tern import orders FILE --shop {shop}')
    platform, folder = open_platform(settings, pulling), place.environment.data_dir
    with booked(place.engine, "pull", parameters={"shop": shop}) as run:
        for entity in ENTITIES[settings.platform]:
            now = utc_now()
            window = landing.next_window(
                place.engine, shop, entity, pulling=pulling, until=until or now, since=since
            )
            fetched = landing.fetch(
                place.engine, folder, platform, settings, entity, window=window, now=now, run_id=run.run_id
            )
            gate = check_fetched(
                place.engine,
                folder,
                platform,
                fetched,
                max_rejected_share=quality.max_rejected_share,
                tolerated_rows=quality.tolerated_rows,
                now=now,
                run_id=run.run_id,
            )
            taken = take_in(
                place.engine,
                folder,
                place.config,
                platform,
                fetched,
                gate,
                secret=place.environment.secret,
                now=now,
                run_id=run.run_id,
            )
            run.say(taken.sentence())
            results.append({"entity": entity, **taken.counts()})
    if as_json:
        return print_json({"shop": shop, "entities": results})
    print_table(results, title=f"{shop}: rows")
    console.print("\n".join(run.summary["sentences"]))
    return None


def register(app: typer.Typer) -> None:
    app.command("import")(import_file)
    app.command()(pull)
