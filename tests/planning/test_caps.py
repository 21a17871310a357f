"""Caps against the obvious slow way: random rules, histories and shops, to the microsecond at every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from lifecycle.settings.models import CampaignsFile, CapRule
from tests.planning.people import DAY, NOW, add_messages, add_people, clear, message, verdict_rows, with_caps

TODAY = "2026-11-22"
TICK = timedelta(microseconds=1)
PEOPLE = (1, 2)
FIRST = ("vip_thanks", "flash")
"""Campaigns that go before winback; `late` goes after it."""

rules = st.builds(
    lambda **fields: fields,
    limit=st.sampled_from([1, 1, 1, 2, 2, 3, 0]),
    days=st.sampled_from([1, 3, 7]),
    channels=st.sampled_from([None, None, ["email"], ["email", "chat"], ["chat"]]),
    campaigns=st.sampled_from([None, None, None, ["winback"], ["winback", "vip_thanks"], ["vip_thanks"]]),
    scope=st.sampled_from(["customer", "customer_and_shop"]),
)
moments = st.builds(
    lambda days, nudge: NOW - days * DAY + nudge,
    st.sampled_from([0, 0, 1, 3, 7]),
    st.sampled_from([timedelta(0), timedelta(0), TICK, -TICK]),
)
sent = st.builds(
    lambda **fields: fields,
    customer_id=st.sampled_from(PEOPLE),
    send_at=moments,
    what=st.sampled_from(["winback", *FIRST, "late"]),
    today=st.booleans(),
    channel=st.sampled_from(["email", "email", "email", "chat"]),
    purpose=st.sampled_from(["marketing"] * 5 + ["review_request", "transactional"]),
    shop=st.sampled_from(["atlas", "harbour"]),
    state=st.sampled_from(["reserved", "sending", "accepted", "accepted", "unknown", "refused"]),
)


def cap(limit: int, days: int) -> dict[str, Any]:
    return {"limit": limit, "days": days, "channels": None, "campaigns": None, "scope": "customer"}


def mail(send_at: datetime, what: str = "late", today: bool = False) -> dict[str, Any]:
    fixed = {"customer_id": 1, "channel": "email", "purpose": "marketing", "shop": "atlas", "state": "accepted"}
    return fixed | {"send_at": send_at, "what": what, "today": today}


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(caps=st.lists(rules, min_size=1, max_size=3), history=st.lists(sent, max_size=7))
@example(caps=[cap(1, 1), cap(2, 7)], history=[mail(NOW - DAY)])
@example(caps=[cap(2, 7)], history=[mail(NOW - DAY), mail(NOW, "vip_thanks", today=True)])
@example(caps=[cap(1, 7)], history=[mail(NOW, "flash", today=True)])
@example(caps=[cap(1, 7)], history=[mail(NOW, "late", today=True)])
def test_caps_equal_the_slow_way(
    engine: Engine,
    changed: Callable[..., Config],
    caps: list[dict[str, Any]],
    history: list[dict[str, Any]],
) -> None:
    clear(engine)
    config = _with_more_campaigns(changed, [{"name": f"rule_{i}", **cap} for i, cap in enumerate(caps)])
    shops = {i: "harbour" if i % 2 else "atlas" for i in PEOPLE}
    add_people(engine, PEOPLE, shops=shops)
    rows = _rows(history)
    ids = add_messages(engine, rows)
    ledger = [row | {"message_id": message_id} for row, message_id in zip(rows, ids, strict=True)]

    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)

    found = verdict_rows(engine, plan.plan_id)
    for person in PEOPLE:
        mine = [row for row in ledger if row["customer_id"] == person]
        row = found[person]
        assert (row.verdict, row.rule, row.blocking_message_id, row.frees_at) == _slowly(
            config.caps_file.caps, mine, shops[person]
        )


def _with_more_campaigns(changed: Callable[..., Config], caps: Sequence[Mapping[str, Any]]) -> Config:
    config = with_caps(changed, *caps)
    winback = config.campaign("winback")
    more = {"flash": winback.priority, "late": winback.priority}
    flash, late = (winback.model_dump() | {"name": name, "priority": more[name]} for name in more)
    every = [campaign.model_dump() for campaign in config.campaigns_file.campaigns]
    file = config.campaigns_file.model_dump() | {"campaigns": [flash, *every, late]}
    return replace(config, campaigns_file=CampaignsFile.model_validate(file))


def _rows(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A campaign writes to a person once a day in a channel: a second message of today gets another date."""
    rows, taken = [], set()
    for number, fields in enumerate(history):
        key = fields["what"], fields["customer_id"], fields["channel"]
        today = fields["today"] and fields["what"] != "winback" and key not in taken
        if today:
            taken.add(key)
        values = {name: value for name, value in fields.items() if name != "today"}
        rows.append(message(**values) | {"occurrence": TODAY if today else f"earlier {number}"})
    return rows


def _slowly(
    caps: Sequence[CapRule], ledger: Sequence[Mapping[str, Any]], shop: str
) -> tuple[str, str | None, int | None, datetime | None]:
    blocks = []
    for rule in caps:
        if rule.channels is not None and "email" not in rule.channels:
            continue
        if rule.campaigns is not None and "winback" not in rule.campaigns:
            continue
        if rule.limit == 0:
            blocks.append((rule, True, None, None, None))
            continue
        counted = [
            row
            for row in ledger
            if row["state"] != "refused"
            and row["purpose"] != "transactional"
            and NOW - timedelta(days=rule.days) < row["send_at"] <= NOW
            and (rule.channels is None or row["channel"] in rule.channels)
            and (rule.campaigns is None or row["what"] in rule.campaigns)
            and (rule.scope == "customer" or row["shop"] == shop)
        ]
        counted.sort(key=lambda row: (row["send_at"], row["message_id"]), reverse=True)
        if len(counted) < rule.limit:
            continue
        won = [row["message_id"] for row in counted if row["what"] in FIRST and row["occurrence"] == TODAY]
        blocking = counted[rule.limit - 1]
        frees_at = blocking["send_at"] + timedelta(days=rule.days)
        blocks.append(
            (rule, len(counted) - len(won) >= rule.limit, blocking["message_id"], max(won, default=None), frees_at)
        )
    if not blocks:
        return "selected", None, None, None
    last = max(blocks, key=lambda block: (block[4] is None, block[4] or NOW, -caps.index(block[0])))
    rule, _, blocking_id, winner, frees_at = last
    if any(unaided for _, unaided, _, _, _ in blocks):
        return "capped", rule.name, blocking_id, frees_at
    return "lost_to", rule.name, winner, frees_at
