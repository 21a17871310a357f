from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.runtime import flow_run

from lifecycle.db.runs import booked
from lifecycle.platforms import ENTITIES
from tasks.check import check
from tasks.place import workplace
from tasks.pull import patient
from tasks.take_in import take_in


@flow(name="pull-shop", flow_run_name="pull {shop}")
def pull_shop(shop: str, since: datetime | None = None, until: datetime | None = None) -> str:
    """Pull what changed at one shop, check it, and take in what passed.

    A pull that fails leaves bookmark and tables as they were. Returns the run id.

    Args:
        shop: Name of the shop in config/shops.yaml.
        since: Only what changed from here on; empty: from the bookmark.
        until: Only what changed before; empty: until now.
    """
    place = workplace()
    settings = place.config.shop(shop)
    with booked(place.engine, "pull-shop", parameters={"shop": shop}, flow_run_id=flow_run.id) as run:
        for entity in ENTITIES[settings.platform]:
            fetched = patient()(shop, entity, since, until, run.run_id)
            gate = check(fetched, run.run_id)
            taken = take_in(fetched, gate, run.run_id)
            run.say(taken.sentence())
            run.summary[entity] = taken.counts()
    return run.run_id
