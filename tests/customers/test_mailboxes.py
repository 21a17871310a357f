"""Which provider runs a customer's mailbox: by the list, by DNS, and what silence means."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from lifecycle.customers.mailboxes import dns_works, fill_known_domains, look_up_domains, provider_of_customer
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, mail_domains
from lifecycle.settings.mailboxes import by_domain, mailboxes, provider_of_exchanger
from tests.ledger.people import NOW, add_people

EXCHANGERS = {
    "brand.example": ["aspmx.l.google.com.", "alt1.aspmx.l.google.com."],
    "office.example": ["office-example.mail.protection.outlook.com."],
    "own.example": ["mx.own.example."],
    "none.example": [],
}


def providers(engine: Engine) -> dict[str, str]:
    query = select(customers.c.email_domain, provider_of_customer()).outerjoin_from(
        customers, mail_domains, mail_domains.c.domain == customers.c.email_domain
    )
    with reading(engine) as connection:
        return {domain: provider for domain, provider in connection.execute(query)}


def test_by_the_list_then_by_dns_and_never_by_silence(engine: Engine) -> None:
    domains = ["gmail.com", *EXCHANGERS, "silent.example"]
    add_people(engine, [f"person@{domain}" for domain in domains])
    with writing(engine) as connection:
        fill_known_domains(connection, NOW)
        fill_known_domains(connection, NOW)
    asked: list[str] = []

    def resolve(domain: str) -> list[str] | None:
        asked.append(domain)
        return EXCHANGERS.get(domain)

    assert look_up_domains(engine, now=NOW, resolve=resolve) == 4
    assert "gmail.com" not in asked
    assert providers(engine) == {
        "gmail.com": "google", "brand.example": "google", "office.example": "microsoft",
        "own.example": "other", "none.example": "other", "silent.example": "other",
    }  # fmt: skip
    asked.clear()
    look_up_domains(engine, now=NOW + timedelta(days=6), resolve=resolve)
    assert asked == ["silent.example"], "the others are known for a week"
    asked.clear()
    look_up_domains(engine, now=NOW + timedelta(days=7), resolve=resolve)
    assert sorted(asked) == sorted([*EXCHANGERS, "silent.example"])


@pytest.mark.parametrize(
    ("answer", "works"), [(["gmail-smtp-in.l.google.com."], True), ([], False), (None, False)]
)
def test_control_domain(answer: list[str] | None, works: bool) -> None:
    assert dns_works(lambda domain: answer) is works


def test_list_is_consistent() -> None:
    domains = [domain for provider in mailboxes().providers.values() for domain in provider.domains]
    assert len(domains) == len(set(domains)) == len(by_domain())
    assert provider_of_exchanger("evil-google.com") == "other"
    assert provider_of_exchanger("MX1.Google.COM.") == "google"
