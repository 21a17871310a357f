"""Verdicts: for every candidate the first reason why not, in the order of `VERDICTS`, else `selected`.

The reasons are asked one after the other, each only about those still standing. Whom they are asked about and
what was decided are in two temporary tables with keys, so that no planner, however wrong about their sizes, joins
them without an index. Caps, quotas and the competition of campaigns are decided over arrays: `contest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, Select, func, insert, select

from lifecycle.customers.consent import ConsentLaw
from lifecycle.customers.handles import address_hash_of
from lifecycle.db.engine import analyze
from lifecycle.db.schema import customers
from lifecycle.planning.applied import applied_plan
from lifecycle.planning.audience import audience
from lifecycle.planning.contest import Contender, contest, nearest, on_dates
from lifecycle.planning.counting import concerns
from lifecycle.planning.judgement import Judgement, candidates, decided, work_tables
from lifecycle.planning.policy import policy_reasons, unmet_needs
from lifecycle.planning.quiet import quiet_hours
from lifecycle.planning.reasons import held_out, no_address, no_consent, ordered_since, suppressed, unknown_shop
from lifecycle.planning.records import Slots
from lifecycle.planning.stored import Stored, contender, record
from lifecycle.settings.models import Campaign, CapRule, Quota
from lifecycle.settings.policies import policies, quiet_hours_of

_REASONS: tuple[Callable[[Judgement], Select], ...] = (
    no_address,
    suppressed,
    lambda judgement: no_consent(judgement, _law()),
    unknown_shop,
    *policy_reasons,
    ordered_since,
    held_out,
)

COLUMNS = (
    "customer_id", "verdict", "rule", "blocking_message_id", "frees_at", "lost_to", "segment", "shop", "locale",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """people: the Select of COLUMNS, for each of them. slots: what quotas came to."""

    people: Select
    slots: tuple[Slots, ...]


@contextmanager
def judged(
    connection: Connection, people: Select, judgement: Judgement, rivals: Sequence[Contender] = ()
) -> Iterator[Judged]:
    """Judge `people` (customer_id, unique; segment, shop, locale); inside, `decided` holds all but the selected.

    `rule` is what decided: the reason of a suppression, the state of a consent, the experiment, the cap.
    """
    with _work_tables(connection):
        ask(connection, people, judgement)
        mine = contender(connection, judgement, judgement.at)
        sources = Stored(connection, judgement, alone=not rivals)
        outcome = contest(sources, judgement, mine, competing(judgement, mine, rivals))
        record(connection, outcome)
        _insert(connection, quiet_hours(connection, judgement, quiet_hours_of))
        both = {column.name: column for column in (*decided.c, *candidates.c)}
        both["verdict"] = func.coalesce(decided.c.verdict, "selected")
        yield Judged(
            select(*(both[name].label(name) for name in COLUMNS)).outerjoin_from(
                candidates, decided, decided.c.customer_id == candidates.c.customer_id
            ),
            outcome.slots,
        )


@contextmanager
def reconsidered(connection: Connection, people: Select, judgement: Judgement) -> Iterator[None]:
    """Of people who were to be written to, put into `decided` those whose reason is gone, those to whom such a
    message can no longer be sent, because a window has closed, and those for whom it is night at `judgement.at`.
    Consent and suppression are asked of each message when it leaves."""
    with _work_tables(connection):
        _fill(connection, people, judgement)
        _insert(connection, ordered_since(judgement))
        _insert(connection, unmet_needs(judgement))
        _insert(connection, quiet_hours(connection, judgement, quiet_hours_of))
        yield


def rivals(connection: Connection, judgement: Judgement, *, as_of: datetime) -> tuple[Contender, ...]:
    """The other campaigns that may want the same slots, on each of their dates from today on within the
    look-ahead, and whom they could be sent to as things stand."""
    return rivals_among(
        judgement,
        lambda other: _is_done(connection, judgement, other),
        lambda other: _standing(connection, judgement, other, as_of),
    )


def rivals_among(
    judgement: Judgement, is_done: Callable[[Campaign], bool], standing: Callable[[Campaign], Contender]
) -> tuple[Contender, ...]:
    """The same, wherever it is known which campaigns were sent today and who could be sent to."""
    found: list[Contender] = []
    for other in judgement.config.campaigns.values():
        if other.name == judgement.campaign.name or not _share_slots(judgement, other):
            continue
        if times := _times_ahead(judgement, other, done=is_done(other)):
            found += on_dates(standing(other), times)
    return nearest(found)


def competing(judgement: Judgement, mine: Contender, rivals: Sequence[Contender]) -> tuple[Contender, ...]:
    """The rivals and, where there are any, the campaign's own later dates."""
    later = on_dates(mine, _times_ahead(judgement, judgement.campaign, done=True)) if rivals else []
    return nearest([*rivals, *later])


def _standing(connection: Connection, judgement: Judgement, campaign: Campaign, as_of: datetime) -> Contender:
    theirs = Judgement(
        judgement.config, campaign, judgement.occurrence, judgement.at, judgement.since, judgement.rules, ()
    )
    with _work_tables(connection):
        ask(connection, audience(connection, judgement.config, campaign, as_of=as_of), theirs)
        return contender(connection, theirs, judgement.at)


def _share_slots(judgement: Judgement, other: Campaign) -> bool:
    """Whether a cap or a quota counts messages of both."""
    rules: tuple[CapRule | Quota, ...] = (*judgement.rules, *judgement.quotas)
    return any(not rule.is_off and concerns(rule, judgement.campaign) and concerns(rule, other) for rule in rules)


def _is_done(connection: Connection, judgement: Judgement, other: Campaign) -> bool:
    return applied_plan(connection, other.name, judgement.occurrence, other.channel) is not None


def _times_ahead(judgement: Judgement, other: Campaign, *, done: bool) -> list[datetime]:
    """When a campaign is sent, from today on within the look-ahead; one that is due every day only today. `done`:
    it was sent today."""
    if other.schedule is None:
        return [] if done else [judgement.at]
    today = date.fromisoformat(judgement.occurrence)
    ahead = range(1 if done else 0, judgement.config.campaigns_file.look_ahead_days + 1)
    due = (days for days in ahead if other.schedule.is_due(today + timedelta(days=days)))
    return [judgement.at + timedelta(days=days) for days in due]


def ask(
    connection: Connection,
    people: Select,
    judgement: Judgement,
    over: Callable[[Select], Select] = lambda reason: reason,
) -> None:
    """Put `people` into `candidates`, and into `decided` who of them is not to be written to, caps apart.

    `over` makes of a reason the same over other tables than the stored ones.
    """
    _fill(connection, people, judgement)
    analyze(connection, candidates)
    for reason in _REASONS:
        _insert(connection, over(reason(judgement)))


def _insert(connection: Connection, reason: Select) -> None:
    columns = [column.name for column in decided.c][: len(reason.selected_columns)]
    connection.execute(insert(decided).from_select(columns, reason))


@contextmanager
def _work_tables(connection: Connection) -> Iterator[None]:
    work_tables.create_all(connection, checkfirst=False)
    yield
    work_tables.drop_all(connection, checkfirst=False)


def _fill(connection: Connection, people: Select, judgement: Judgement) -> None:
    """`people` with what the reasons ask about each: address_hash, country and seed."""
    person = people.subquery("person")
    address_hash = address_hash_of(judgement.channel_kind, customers.c.customer_id, person.c.shop)
    known = select(person, address_hash, customers.c.country, customers.c.seed).join_from(
        person, customers, customers.c.customer_id == person.c.customer_id
    )
    connection.execute(insert(candidates).from_select([column.name for column in candidates.c], known))


def _law() -> ConsentLaw:
    laws = policies()
    return ConsentLaw(
        bases={code: law.consent_bases for code, law in laws.countries.items()},
        reconfirm_years={code: law.reconfirm_years for code, law in laws.countries.items() if law.reconfirm_years},
        elsewhere=laws.elsewhere.consent_bases,
    )
