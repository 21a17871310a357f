"""Verdicts: for every candidate the first reason why not, in the order of `VERDICTS`, else `selected`.

The reasons are asked one after the other, each only about those still standing. Whom they are asked about and
what was decided are in two temporary tables with keys, so that no planner, however wrong about their sizes, joins
them without an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Select, case, func, insert, select

from lifecycle.db.schema import customers
from lifecycle.planning.caps import capped
from lifecycle.planning.judgement import Judgement, candidates, decided, work_tables
from lifecycle.planning.reasons import held_out, no_address, no_consent, suppressed, unknown_shop

_REASONS = (no_address, suppressed, no_consent, unknown_shop, held_out, capped)

COLUMNS = ("customer_id", "verdict", "rule", "blocking_message_id", "frees_at", "segment", "shop", "locale")


@contextmanager
def judged(connection: Connection, people: Select, judgement: Judgement) -> Iterator[Select]:
    """Judge `people` (customer_id, unique; segment, shop, locale); inside, the Select yields COLUMNS for each.

    `rule` is what decided: the reason of a suppression, the state of a consent, the experiment, the cap.
    """
    work_tables.create_all(connection, checkfirst=False)
    connection.execute(insert(candidates).from_select([column.name for column in candidates.c], _known(people)))
    for reason in _REASONS:
        found = reason(judgement)
        columns = [column.name for column in decided.c][: len(found.selected_columns)]
        connection.execute(insert(decided).from_select(columns, found))
    both = {column.name: column for column in (*decided.c, *candidates.c)}
    both["verdict"] = func.coalesce(decided.c.verdict, "selected")
    yield select(*(both[name].label(name) for name in COLUMNS)).outerjoin_from(
        candidates, decided, decided.c.customer_id == candidates.c.customer_id
    )
    work_tables.drop_all(connection, checkfirst=False)


def _known(people: Select) -> Select:
    """`people` with what the reasons ask about each: address_hash and seed."""
    person = people.subquery("person")
    address_hash = case((customers.c.email.is_not(None), customers.c.email_hash))
    return select(person, address_hash, customers.c.seed).join_from(
        person, customers, customers.c.customer_id == person.c.customer_id
    )
