"""Made-up people for real purchases: names, e-mail addresses on reserved domains, languages, consent.

Nothing here is drawn at random: a share is a hash of the customer's id in the input, so the same input always
meets the same people.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from sandbox.shops import SHOPS

T = TypeVar("T")

BOTH_SHOPS = 0.15
"""So many customers buy at both shops, with the same address."""
SUBSCRIBED, UNSUBSCRIBED = 0.70, 0.15
"""Of a shop's customers; the rest was never asked."""
GONE = 0.02
"""Of the people; their mailbox does not exist (any more), see `is_gone`."""
WITHOUT_EMAIL = 0.01
GUESTS_WITH_EMAIL = 0.30
"""Of the guest orders at harbour: a WooCommerce checkout asks for it."""

DOMAINS: Mapping[str, float] = {
    "gmail.example.com": 0.40,
    "icloud.example.com": 0.25,
    "outlook.example.com": 0.20,
    "post.example.net": 0.10,
    "firm.example.org": 0.05,
}
"""Mailbox providers, named after what they stand in for; none can exist (RFC 2606)."""

_FIRST = {
    "en": "Alice Amelia Ava Charlie Chloe Daisy Emily Ethan Freya George Grace Harry Isla Jack James Leo Lily Lucy"
    " Mia Noah Oliver Olivia Oscar Poppy Rosie Ruby Sophie Theo Thomas William",
    "fr": "Adèle Antoine Arthur Camille Chloé Clément Élise Emma Gabriel Hugo Inès Jade Jeanne Jules Léa Léo"
    " Louise Lucas Manon Margaux Mathis Nathan Nina Noé Paul Raphaël Romain Sarah Théo Zoé",
}
_LAST = {
    "en": "Baker Bell Carter Clarke Cooper Davies Edwards Evans Fisher Green Hall Harris Hughes Jones Kelly King"
    " Lewis Martin Moore Morris Parker Price Roberts Scott Shaw Taylor Turner Walker White Young",
    "fr": "Bernard Blanc Bonnet Boyer Chevalier Clément David Dubois Dupont Durand Faure Fontaine Fournier"
    " François Garnier Girard Lambert Laurent Leroy Martin Mercier Michel Moreau Perrin Petit Renard Robert"
    " Roux Simon Vincent",
}
_FRENCH = {"FR": 1.0, "MC": 1.0, "LU": 0.7, "BE": 0.45, "CH": 0.25, "CA": 0.25}
"""Share of a country's customers who read French; everybody else reads English."""


@dataclass(frozen=True)
class Person:
    first: str
    last: str
    email: str | None
    country: str | None
    locale: str


def draw(key: str, question: str) -> float:
    """In [0, 1), the same for the same key and question."""
    digest = hashlib.blake2b(f"{question}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def pick(key: str, question: str, shares: Mapping[T, float]) -> T:
    """One of the keys of `shares`, which sum to 1."""
    point = draw(key, question)
    for choice, share in shares.items():
        point -= share
        if point < 0:
            return choice
    return choice  # the shares' sum was rounded


def shops_of(customer: str) -> tuple[str, ...]:
    """Where a customer buys: at one shop, or at both."""
    both, first, second = draw(customer, "shops"), *SHOPS
    if both < BOTH_SHOPS:
        return (first, second)
    return (first,) if both < BOTH_SHOPS + (1 - BOTH_SHOPS) / 2 else (second,)


def person(customer: str, number: int, *, country: str | None, spread: bool) -> Person:
    """`number` keeps addresses apart. With `spread` the country is made up as well."""
    if spread:
        country = pick(customer, "country", SHOPS[shops_of(customer)[0]].countries)
    locale = "fr" if draw(customer, "language") < _FRENCH.get(country or "", 0.0) else "en"
    first = _one_of(customer, "first name", _FIRST[locale])
    last = _one_of(customer, "last name", _LAST[locale])
    local = _ascii(f"{first}.{last}{number}")
    if draw(customer, "gone") < GONE:
        local = f"gone.{local}"
    address = f"{local}@{pick(customer, 'domain', DOMAINS)}"
    without = draw(customer, "without email") < WITHOUT_EMAIL
    return Person(first, last, None if without else address, country, locale)


def is_gone(address: str) -> bool:
    """True for a made-up address whose mailbox does not exist: a server answers 550 5.1.1."""
    return address.startswith("gone.")


def consent(customer: str, shop: str) -> str | None:
    """`subscribed`, `unsubscribed`, or None for a customer who was never asked."""
    point = draw(f"{customer}@{shop}", "consent")
    if point < SUBSCRIBED:
        return "subscribed"
    return "unsubscribed" if point < SUBSCRIBED + UNSUBSCRIBED else None


def _one_of(key: str, question: str, words: str) -> str:
    choices = words.split()
    return choices[int(draw(key, question) * len(choices))]


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return plain.lower()
