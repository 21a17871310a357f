"""Batches of the ledger and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Batch:
    """Messages that one task sends over one channel. `messages`: how many are due. `mailbox_provider`: of all of
    them; empty where they are no mails."""

    plan_id: int
    batch: int
    channel: str
    messages: int
    mailbox_provider: str = ""


@dataclass
class BatchResult:
    """accepted, refused, unknown: what the peer said. revised: not sent, because the person or the content no
    longer allowed it. held: still in the ledger, to be sent later. busy: another process has the batch.
    problem: why the batch was left before its end.
    """

    plan_id: int | None = None
    batch: int | None = None
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    held: int = 0
    revised: int = 0
    busy: bool = False
    full: bool = False
    problem: str | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    def sentence(self) -> str:
        if self.busy:
            return "another process is sending this batch"
        if self.full:
            return "all connections to this mailbox provider are in use"
        parts = [f"{self.accepted:,} accepted"]
        parts += [f"{self.refused:,} refused"] if self.refused else []
        parts += [f"{self.unknown:,} unknown"] if self.unknown else []
        parts += [f"{self.held:,} held for later"] if self.held else []
        parts += [f"{self.revised:,} not sent after all"] if self.revised else []
        return ", ".join(parts) + (f"; stopped: {self.problem}" if self.problem else "")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def total(results: Iterable[BatchResult]) -> BatchResult:
    """All of them as one; problems that differ are joined. Busy only where every one was."""
    results = list(results)
    problems = sorted({result.problem for result in results if result.problem})
    plans = {result.plan_id for result in results}
    return BatchResult(
        plan_id=plans.pop() if len(plans) == 1 else None,
        accepted=sum(result.accepted for result in results),
        refused=sum(result.refused for result in results),
        unknown=sum(result.unknown for result in results),
        held=sum(result.held for result in results),
        revised=sum(result.revised for result in results),
        busy=bool(results) and all(result.busy for result in results),
        full=any(result.full for result in results),
        problem="; ".join(problems) or None,
        reasons=sum((result.reasons for result in results), Counter[str]()),
    )
