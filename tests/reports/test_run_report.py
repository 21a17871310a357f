"""Every number of a report against counting by hand, on random ledgers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import Engine, delete, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import plans, quarantine, runs, segment_members, segment_runs, verdicts
from lifecycle.errors import AuditFailed, UsageError
from lifecycle.reports.records import AlsoSent, RunReport, SegmentMove
from lifecycle.reports.run_report import build_report
from lifecycle.settings import Config
from lifecycle.tracking.rules import rules_version
from tests.reports.ledger import AS_OF, OLD, RUN, START, Ledger, random_ledger
from tests.reports.oracle import Oracle


def stored(engine: Engine, config: Config, seed: int = 1) -> Ledger:
    ledger = random_ledger(seed, rules_version(config.channels_file.tracking))
    ledger.store(engine)
    return ledger


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(("run_id", "plan_ids"), [(RUN, {1, 2}), (OLD, {3})])
def test_every_number_equals_counting_by_hand(
    engine: Engine, config: Config, seed: int, run_id: str, plan_ids: set[int]
) -> None:
    ledger = stored(engine, config, seed)
    as_of = AS_OF if seed % 2 else START + timedelta(days=4)
    report = build_report(engine, config, run_id=run_id, as_of=as_of)
    oracle = Oracle(ledger, plan_ids, as_of, config.channels_file.tracking.attribution_days)

    names = {1: "winback", 2: "vip_thanks", 3: "winback"}
    for groups, name in (
        ((report.total,), lambda row: "all"),
        (report.campaigns, lambda row: names[row["plan_id"]]),
        (report.segments, lambda row: row["segment"]),
        (report.languages, lambda row: row["locale"]),
    ):
        found = {group.name: +Counter(group.figures.counts) for group in groups}
        expected = {key: +counts for key, counts in oracle.counts(name).items()}
        assert found.keys() == expected.keys()
        for key, counts in expected.items():
            assert sorted(found[key].items()) == sorted(counts.items()), key
    assert report.total.figures.orders > 0 or run_id == OLD, "the random ledger shows no order: it tests nothing"


def test_links_count_the_mails_in_which_a_person_followed_them(engine: Engine, config: Config) -> None:
    ledger = stored(engine, config)
    report = build_report(engine, config, run_id=RUN, as_of=AS_OF)
    oracle = Oracle(ledger, {1, 2}, AS_OF, 7)
    expected = Counter[tuple[str, str]]()
    seen = set()
    for event in oracle.events:
        message = oracle.messages[event["message_id"]]
        key = (message["what"], f"https://shop.example/{event['link_id']}", message["message_id"])
        by_person = event["kind"] == "clicked" and oracle.classes.get(event["event_id"]) == "person"
        if by_person and message["plan_id"] in (1, 2) and key not in seen:
            seen.add(key)
            expected[key[:2]] += 1
    assert {(link.campaign, link.url): link.people for link in report.links} == expected


def test_refusals_show_no_address(engine: Engine, config: Config) -> None:
    ledger = stored(engine, config)
    report = build_report(engine, config, run_id=RUN, as_of=AS_OF)
    refused = sum(
        row["state"] == "refused" and row["plan_id"] != 3 and "since planning" not in row["reason"]
        for row in ledger.messages
    )
    assert sum(each.messages for each in report.refusals) == refused == report.total.figures.refused
    assert {each.reason for each in report.refusals} == {
        "550 5.1.1 ‹address›: User unknown",
        "452 4.2.2 mailbox full",
    }


def test_stages_pulls_quarantine_and_movement(engine: Engine, config: Config) -> None:
    stored(engine, config)
    counts = {"new": 5, "changed": 1, "equal": 90, "rejected": 2}
    with writing(engine) as connection:
        connection.execute(
            runs.insert().values(
                run_id="p", flow="pull-shop", parent_run_id=RUN, parameters={"shop": "atlas"}, state="failed",
                started_at=START + timedelta(minutes=1), heartbeat_at=START, ended_at=START + timedelta(minutes=2),
                summary={"orders": counts, "error": "the shop sleeps", "seconds": 60.0, "sentences": ["One."]},
            )
        )  # fmt: skip
        connection.execute(
            quarantine.insert(),
            [
                {"shop": "atlas", "entity": "orders", "row_key": str(n), "row": {}, "lines": n, "run_id": "p",
                 "expectation": "e", "reason": "total is negative", "source": "s", "content_hash": "h",
                 "first_seen_at": START, "last_seen_at": START}
                for n in (1, 2, 3)
            ],
        )  # fmt: skip
        connection.execute(
            segment_runs.insert().values(
                as_of=START, built_at=START, definitions_hash="h", definitions={}, customers=9,
                counts={"dormant": 1, "vip": 2}, run_id=RUN,
            )
        )  # fmt: skip
        spans = [("vip", 1, START, None), ("vip", 2, START - timedelta(days=5), None), ("dormant", 1, None, START)]
        connection.execute(
            segment_members.insert(),
            [
                {"segment": segment, "customer_id": customer, "valid_from": since or START - timedelta(days=9),
                 "valid_to": until}
                for segment, customer, since, until in spans
            ],
        )  # fmt: skip
    report = build_report(engine, config, run_id=RUN, as_of=AS_OF)
    assert [stage.name for stage in report.stages] == [
        "daily", "run-campaign winback", "run-campaign vip_thanks", "pull-shop atlas",
    ]  # fmt: skip
    assert (report.stages[0].peak_mb, report.stages[0].sentences) == (210.0, ("Done.",))
    assert report.problems == ("the shop sleeps",)
    [pull], [rejected] = report.pulls, report.quarantined
    assert (pull.shop, pull.entity, pull.counts) == ("atlas", "orders", counts)
    assert (rejected.reason, rejected.rows, rejected.lines) == ("total is negative", 3, 6)
    assert report.segment_moves == (SegmentMove("vip", 2, 1, 0), SegmentMove("dormant", 1, 0, 1))


def test_a_run_that_sent_nothing_new_says_so(engine: Engine, config: Config) -> None:
    stored(engine, config)
    first = build_report(engine, config, run_id=RUN, as_of=AS_OF)
    assert first.sent_now == first.total.figures.accepted > 0
    with writing(engine) as connection:
        connection.execute(
            runs.insert().values(
                run_id="again", flow="run-campaign", parameters={}, state="completed", heartbeat_at=AS_OF,
                started_at=AS_OF, ended_at=AS_OF, summary={"plan_id": 1, "campaign": "winback"},
            )
        )  # fmt: skip
    again = build_report(engine, config, run_id="again", as_of=AS_OF)
    [winback] = [group for group in first.campaigns if group.name == "winback"]
    assert (again.sent_now, again.total.figures.accepted) == (0, winback.figures.accepted)


def test_mails_of_earlier_plans_are_told_where_the_run_sent_them(engine: Engine, config: Config) -> None:
    ledger = stored(engine, config)
    start, end = START - timedelta(days=2) + timedelta(seconds=100), START + timedelta(seconds=300)
    with writing(engine) as connection:
        connection.execute(
            runs.insert(),
            [
                {"run_id": run_id, "flow": "run-campaign", "parent_run_id": parent, "parameters": {},
                 "state": "completed", "heartbeat_at": start, "started_at": start, "ended_at": end,
                 "summary": {"plan_id": 2, "campaign": "vip_thanks", "also_sent_plans": earlier}}
                for run_id, parent, earlier in (("late", None, [1, 3]), ("again", "late", [1, 2]))
            ],
        )  # fmt: skip
    report = build_report(engine, config, run_id="late", as_of=AS_OF)
    accepted = [row for row in ledger.messages if row["state"] == "accepted"]
    mails = Counter(row["plan_id"] for row in accepted if start <= row["sent_at"] <= end)
    assert all(0 < mails[plan] < sum(row["plan_id"] == plan for row in accepted) for plan in (1, 3))
    assert report.also_sent == (
        AlsoSent("winback", "2026-11-21", mails[1]),
        AlsoSent("winback", "2026-11-23", mails[3]),
    )
    assert build_report(engine, config, run_id=RUN, as_of=AS_OF).also_sent == ()


def test_a_run_without_campaigns_is_a_report_too(engine: Engine, config: Config) -> None:
    stored(engine, config)
    with writing(engine) as connection:
        connection.execute(
            runs.insert().values(
                run_id="idle", flow="daily", parameters={}, state="running", heartbeat_at=START, started_at=START
            )
        )
    report = build_report(engine, config, run_id="idle", as_of=AS_OF)
    assert (report.plans, report.total.figures.audience, report.links) == ((), 0, ())


def test_an_unknown_run_is_a_sentence_with_a_hint(engine: Engine, config: Config) -> None:
    stored(engine, config)
    with pytest.raises(UsageError, match=f'there is no run "daily-2026".*{RUN}'):
        build_report(engine, config, run_id="daily-2026", as_of=AS_OF)


def test_numbers_that_do_not_add_up_are_refused(engine: Engine, config: Config) -> None:
    stored(engine, config)
    with writing(engine) as connection:
        connection.execute(update(plans).where(plans.c.plan_id == 1).values(audience=7))
    with pytest.raises(AuditFailed, match=r"winback has \d+ verdicts for an audience of 7"):
        build_report(engine, config, run_id=RUN, as_of=AS_OF)
    with writing(engine) as connection:
        connection.execute(delete(verdicts).where(verdicts.c.plan_id == 2))
    with pytest.raises(AuditFailed, match="vip_thanks has 0 verdicts"):
        build_report(engine, config, run_id=RUN, as_of=AS_OF)


def test_every_selected_person_of_an_applied_plan_has_a_message(engine: Engine, config: Config) -> None:
    ledger = stored(engine, config)
    with writing(engine) as connection:
        connection.execute(update(plans).where(plans.c.plan_id == 2).values(status="draft"))

    def revise(plan_id: int) -> None:
        sent = next(row for row in ledger.messages if row["plan_id"] == plan_id and row["state"] == "accepted")
        same = (verdicts.c.plan_id == plan_id) & (verdicts.c.customer_id == sent["customer_id"])
        with writing(engine) as connection:
            connection.execute(update(verdicts).where(same).values(revised_verdict="capped"))

    revise(2)
    build_report(engine, config, run_id=RUN, as_of=AS_OF)
    revise(1)
    with pytest.raises(AuditFailed, match=r"winback has \d+ selected people, but \d+ messages"):
        build_report(engine, config, run_id=RUN, as_of=AS_OF)


def test_reading_a_report_changes_nothing(engine: Engine, config: Config) -> None:
    stored(engine, config)
    first, second = (build_report(engine, config, run_id=RUN, as_of=AS_OF) for _ in range(2))
    assert dataclasses.asdict(first) == dataclasses.asdict(second)
    assert isinstance(first, RunReport)
