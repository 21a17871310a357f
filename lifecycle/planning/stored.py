"""The contest over the ledger as it is stored: its sources, and its outcome back into the work tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, FromClause, case, insert, select

from lifecycle.customers.handles import address_hash_of
from lifecycle.db.arrays import EPOCH, NULL, arrays
from lifecycle.db.bulk import load_numbers
from lifecycle.db.engine import analyze
from lifecycle.db.instants import plus_microseconds
from lifecycle.db.schema import VERDICTS, customers, messages, segment_members
from lifecycle.planning import caps, quotas
from lifecycle.planning.contest import Contender, Outcome
from lifecycle.planning.judgement import Judgement, candidates, contenders, decided, found, standing
from lifecycle.planning.past import Past, past
from lifecycle.planning.values import Values, expected_values
from lifecycle.segments.members import member_at
from lifecycle.settings.models import Campaign, CapRule, Quota


def contender(connection: Connection, judgement: Judgement, at: datetime) -> Contender:
    """The campaign with the candidates who are standing."""
    shops = {name: place for place, name in enumerate(judgement.config.shops)}
    segments = {name: place for place, name in enumerate(judgement.campaign.segments)}
    query = (
        select(
            candidates.c.customer_id,
            case(segments, value=candidates.c.segment, else_=0).label("segment"),
            case(shops, value=candidates.c.shop, else_=-1).label("shop"),
            candidates.c.seed,
        )
        .where(standing)
        .order_by(candidates.c.customer_id)
    )
    columns = arrays(connection, query)
    by_id = np.argsort(columns["customer_id"], kind="stable")
    return Contender(judgement.campaign, at, **{name: values[by_id] for name, values in columns.items()})


class Stored:
    """`alone`: nobody competes with the candidates who are standing."""

    def __init__(self, connection: Connection, judgement: Judgement, *, alone: bool) -> None:
        self._connection, self._judgement, self._alone = connection, judgement, alone

    def past(self, ids: NDArray[np.int64], shop: NDArray[np.int64], rules: Sequence[CapRule]) -> Past:
        first = caps.going_first(self._judgement.config.campaigns_file.campaigns, self._judgement.campaign)
        won = select(messages.c.message_id).where(
            messages.c.what.in_(first), messages.c.occurrence == self._judgement.occurrence
        )
        ids_won = arrays(self._connection, won)["message_id"]
        return past(self._connection, self._people(ids, shop), ids, rules, at=self._judgement.at, won=ids_won)

    def _people(self, ids: NDArray[np.int64], shop: NDArray[np.int64]) -> FromClause:
        """customer_id, shop, address_hash of everybody who competes."""
        if self._alone:
            columns = (candidates.c.customer_id, candidates.c.shop, candidates.c.address_hash)
            return select(*columns).where(standing).subquery("people")
        load_numbers(self._connection, contenders, ("customer_id", "shop"), np.column_stack([ids, shop]))
        analyze(self._connection, contenders)
        names = case(dict(enumerate(self._judgement.config.shops)), value=contenders.c.shop)
        same = customers.c.customer_id == contenders.c.customer_id
        address_hash = address_hash_of(self._judgement.channel_kind, customers.c.customer_id, names)
        return (
            select(contenders.c.customer_id, names.label("shop"), address_hash.label("address_hash"))
            .join_from(contenders, customers, same)
            .subquery("people")
        )

    def members(self, segments: Sequence[str]) -> NDArray[np.int64]:
        at = self._judgement.since or self._judgement.at
        query = select(segment_members.c.customer_id).where(segment_members.c.segment.in_(segments), member_at(at))
        return arrays(self._connection, query)["customer_id"]

    def used(self, quota: Quota, at: datetime) -> quotas.Used:
        return quotas.used(self._connection, quota, at)

    def values(self, campaigns: Sequence[Campaign]) -> Values:
        return expected_values(self._connection, self._judgement.config, campaigns, at=self._judgement.at)


def record(connection: Connection, outcome: Outcome) -> None:
    """Into `decided`."""
    whom = np.flatnonzero(outcome.verdict)
    if not len(whom):
        return
    columns = (
        outcome.customer_id, outcome.verdict, outcome.rule, outcome.message_id, outcome.frees_at, outcome.lost_to,
    )  # fmt: skip
    rows = np.column_stack([column[whom] for column in columns])
    load_numbers(connection, found, [column.name for column in found.c], rows)
    connection.execute(
        insert(decided).from_select(
            ["customer_id", "verdict", "rule", "blocking_message_id", "frees_at", "lost_to"],
            select(
                found.c.customer_id,
                case(dict(enumerate(VERDICTS)), value=found.c.verdict),
                case(dict(enumerate(outcome.rules)), value=found.c.rule),
                case((found.c.blocking_message_id != NULL, found.c.blocking_message_id)),
                case((found.c.frees_at != NULL, plus_microseconds(EPOCH, found.c.frees_at))),
                case(dict(enumerate(outcome.winners)), value=found.c.lost_to),
            ),
        )
    )
