"""Does the ledger keep the promises? Proven from what is stored, not from what the code should have done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from lifecycle.db.engine import reading
from lifecycle.ledger import proofs

_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """`invariant`: number and name as in the design. `sentence`: what holds, or what broke it."""

    invariant: str
    passed: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit(engine: Engine, *, data_dir: Path, now: datetime) -> list[Finding]:
    """One finding per check, on one state of the database. Changes nothing."""
    with reading(engine) as connection:
        return [
            _finding(invariant, claim, broken) for invariant, claim, broken in _checks(connection, data_dir, now)
        ]


def _checks(connection: Connection, data_dir: Path, now: datetime) -> Iterator[tuple[str, str, Iterator[str]]]:
    """(invariant, what is claimed, what breaks it)."""
    twice, lost, limits = "1 nobody twice", "2 nothing lost", "3 limits kept"
    sums, pulls, consent = "4 sums agree", "5 pulls repeatable", "8 consent respected"
    members = "6 members exact"
    yield (
        twice,
        "no two messages are for the same campaign, date, customer and channel",
        proofs.sent_twice(connection),
    )
    yield twice, "no two messages have the same id at their provider", proofs.same_provider_id(connection)
    yield (
        lost,
        "everybody whom an applied plan selected has a message",
        proofs.selected_without_message(connection),
    )
    yield lost, "every message goes back to a selected verdict", proofs.message_without_verdict(connection)
    yield (
        lost,
        "no message is on its way without a live process that sends it",
        proofs.sending_without_holder(connection, now),
    )
    yield (
        lost,
        "every accepted message has its proof and every other end its reason",
        proofs.settled_without_proof(connection),
    )
    yield (
        lost,
        "no marketing message has been waiting for more than two days",
        proofs.waiting_too_long(connection, now),
    )
    yield limits, "no message broke a cap when it was reserved", proofs.cap_broken(connection)
    yield limits, "no plan went over a quota", proofs.quota_broken(connection)
    yield (
        limits,
        "no plan that needed an approval was sent without one",
        proofs.applied_without_approval(connection),
    )
    yield limits, "nothing was sent to a suppressed address", proofs.sent_to_suppressed(connection)
    yield sums, "every audience is the sum of its verdicts", proofs.audience_differs(connection)
    yield sums, "no plan's verdicts were changed after it was made", proofs.verdicts_changed(connection)
    yield sums, "every event belongs to a message that was sent before", proofs.event_without_sending(connection)
    elsewhere = proofs.pages_elsewhere(connection, data_dir)
    stored = "every landed page is stored as it came" + (f" ({elsewhere:,} not on this host)" if elsewhere else "")
    yield pulls, stored, proofs.page_changed(connection, data_dir)
    yield pulls, "no bookmark is ahead of the clock", proofs.bookmark_ahead(connection, now)
    yield members, "nobody is in a segment twice at a time", proofs.member_twice(connection)
    yield members, "the newest build's sizes are those of its spans", proofs.members_miscounted(connection)
    yield (
        consent,
        "no marketing was sent after consent had been withdrawn",
        proofs.sent_after_withdrawal(connection),
    )
    yield (
        consent,
        "everybody who was sent marketing had a consent in force when it left",
        proofs.sent_without_consent(connection),
    )


def _finding(invariant: str, claim: str, broken: Iterator[str]) -> Finding:
    shown = list(islice(broken, _SHOWN))
    if not shown:
        return Finding(invariant, True, claim)
    more = sum(1 for _ in broken)
    others = f" and {more:,} more" if more else ""
    return Finding(invariant, False, f"not true that {claim}: {', '.join(shown)}{others}")
