"""What was really sent in a range, by the ledger."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta

import numpy as np
from sqlalchemy import Connection, case, literal, select

from lifecycle.db.arrays import arrays
from lifecycle.db.schema import messages
from lifecycle.planning.simulation.days import in_microseconds
from lifecycle.planning.simulation.history import People
from lifecycle.planning.simulation.records import Count, Replayed


class Really:
    """Messages but transactional ones that left, or may have left. `midnights`: the beginnings of the days of the
    range, and the end of the last."""

    def __init__(self, connection: Connection, midnights: list[datetime]) -> None:
        sent = (
            messages.c.send_at >= midnights[0],
            messages.c.send_at < midnights[-1],
            messages.c.purpose != "transactional",
            messages.c.state.in_(("accepted", "unknown")),
        )
        self._what = sorted(connection.execute(select(messages.c.what).where(*sent).distinct()).scalars())
        what = case({name: place for place, name in enumerate(self._what)}, value=messages.c.what, else_=-1)
        columns = (messages.c.customer_id, messages.c.send_at, (what if self._what else literal(0)).label("what"))
        rows = arrays(connection, select(*columns).where(*sent))
        self.customer_id = rows["customer_id"]
        self._place = rows["what"]
        self._day = np.searchsorted(in_microseconds(midnights), rows["send_at"], side="right") - 1

    def replayed(self, people: People, first: date) -> Replayed:
        counted = Counter(zip(self._day.tolist(), self._place.tolist(), strict=True))
        counts = (
            Count(first + timedelta(days=day), self._what[place], "selected", None, count)
            for (day, place), count in sorted(counted.items())
        )
        _, places = people.find(self.customer_id)
        return Replayed(tuple(counts), np.bincount(places, minlength=len(people.ids)), {})
