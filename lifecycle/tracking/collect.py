"""What came back since the last time: classed, counted, said in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from lifecycle.db.engine import writing
from lifecycle.settings import Config
from lifecycle.tracking.classify import classify, rules_version
from lifecycle.tracking.feedback.intake import prove_by_events


@dataclass(frozen=True)
class Collected:
    """Opens and clicks that got a class now, by (kind, class). `proven`: unknown messages of which something came
    back, so that they were taken."""

    counts: Mapping[tuple[str, str], int]
    rules_version: str
    proven: int = 0

    @property
    def events(self) -> int:
        return sum(self.counts.values())

    def sentence(self) -> str:
        """`1,204 new hits: opened 310 by person, 540 by proxy; clicked 80 by person, 274 by scanner.`"""
        if not self.events:
            return "No new opens or clicks." + self._proven()
        parts = []
        for kind in ("opened", "clicked"):
            found = [f"{n:,} by {class_}" for (each, class_), n in sorted(self.counts.items()) if each == kind]
            if found:
                parts.append(f"{kind} {', '.join(found)}")
        return f"{self.events:,} new hits: {'; '.join(parts)}." + self._proven()

    def _proven(self) -> str:
        return f" {self.proven:,} unknown messages have arrived, as what came back shows." if self.proven else ""


def collect(engine: Engine, config: Config, *, now: datetime) -> Collected:
    """Class what the web app has stored since the last time."""
    with writing(engine) as connection:
        proven = prove_by_events(connection, now)
    classified = classify(engine, config, now=now)
    return Collected(classified.counts, rules_version(config.channels_file.tracking), proven)
