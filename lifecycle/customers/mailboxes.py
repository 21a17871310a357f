"""Who runs the mailbox of a customer: from the list of known domains, else by asking DNS who takes mail for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import dns.exception
import dns.resolver
from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select

from lifecycle.db.bulk import upsert
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, mail_domains
from lifecycle.settings.mailboxes import OTHER, by_domain, mailboxes, provider_of_exchanger

KEPT_FOR = timedelta(days=7)
"""An answer of DNS is asked again after it (deliverability notes, 6)."""

Resolve = Callable[[str], list[str] | None]
"""A domain's mail exchangers, best first; none where it has none; None where nobody answers."""


def fill_known_domains(connection: Connection, now: datetime) -> None:
    """The list of settings/mailboxes.yaml, as rows to join with."""
    known = by_domain()
    listed = mail_domains.c.source == "list"
    if connection.execute(select(func.count()).where(listed)).scalar_one() == len(known):
        return
    rows = [
        {"domain": domain, "provider": provider, "source": "list", "checked_at": now}
        for domain, provider in known.items()
    ]
    upsert(connection, mail_domains, rows, key=["domain"], update=["provider", "source", "checked_at"])


def provider_of_customer() -> ColumnElement[str]:
    """Of `customers`, outer-joined with `mail_domains` on the domain."""
    return func.coalesce(mail_domains.c.provider, OTHER)


def look_up_domains(engine: Engine, *, now: datetime, resolve: Resolve, most: int = 1000) -> int:
    """Ask who takes mail for the domains of most customers of which that is not known, or not lately. Returns how
    many answered. Where nobody answers nothing is noted: a domain without an answer is no domain without mail."""
    with reading(engine) as connection:
        domains = list(_unknown(connection, now, most))
    rows = []
    for domain in domains:
        exchangers = resolve(domain)
        if exchangers is not None:
            provider = provider_of_exchanger(exchangers[0]) if exchangers else OTHER
            rows.append({"domain": domain, "provider": provider, "source": "mx", "checked_at": now})
    with writing(engine) as connection:
        upsert(connection, mail_domains, rows, key=["domain"], update=["provider", "source", "checked_at"])
    return len(rows)


def _unknown(connection: Connection, now: datetime, most: int) -> Iterable[str]:
    query = (
        select(customers.c.email_domain)
        .outerjoin_from(customers, mail_domains, mail_domains.c.domain == customers.c.email_domain)
        .where(
            customers.c.email_domain.is_not(None),
            or_(
                mail_domains.c.domain.is_(None),
                (mail_domains.c.source == "mx") & (mail_domains.c.checked_at <= now - KEPT_FOR),
            ),
        )
        .group_by(customers.c.email_domain)
        .order_by(func.count().desc(), customers.c.email_domain)
        .limit(most)
    )
    return connection.execute(query).scalars()


def exchangers(domain: str, resolver: dns.resolver.Resolver | None = None) -> list[str] | None:
    """Mail exchangers by DNS, as `Resolve`."""
    try:
        answer = (resolver or dns.resolver.get_default_resolver()).resolve(domain, "MX", lifetime=5)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError):
        return None
    return [str(each.exchange) for each in sorted(answer, key=lambda each: each.preference)]


def dns_works(resolve: Resolve = exchangers) -> bool:
    """A domain that surely has mail is found: without it every domain would seem to have none."""
    control = next(iter(mailboxes().providers["google"].domains))
    return bool(resolve(control))
