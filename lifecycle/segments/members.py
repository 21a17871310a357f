"""Who was in which segment, from the spans that the builds have left."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select, text

from lifecycle.db.schema import segment_members, segment_runs


def members(segment: str, as_of: datetime) -> Select:
    """customer_id of everybody in `segment` at `as_of`: as the newest build up to then left it."""
    return select(segment_members.c.customer_id).where(segment_members.c.segment == segment, member_at(as_of))


def member_at(as_of: datetime) -> ColumnElement[bool]:
    """Spans of segment_members, half-open [valid_from, valid_to), that hold `as_of`."""
    until = segment_members.c.valid_to
    return and_(segment_members.c.valid_from <= as_of, or_(until.is_(None), until > as_of))


def newest_build(connection: Connection, until: datetime | None = None) -> datetime | None:
    """The instant as of which segments were built last, not after `until`; None before the first build."""
    query = select(func.max(segment_runs.c.as_of))
    if until is not None:
        query = query.where(segment_runs.c.as_of <= until)
    return connection.execute(query).scalar()


def hold_members(connection: Connection, *, alone: bool = False) -> None:
    """Keep builds from changing members until this transaction ends; `alone` for the one who changes them.
    In SQLite every writing transaction is alone."""
    if connection.dialect.name == "postgresql":
        mode = "exclusive" if alone else "share"
        connection.execute(text(f"lock table customer_metrics in {mode} mode"))
