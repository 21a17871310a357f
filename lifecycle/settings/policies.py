"""What marketplaces, channels and countries allow: dated rules as data, each with its source, in `packs/*.yaml`.

A pack is of one marketplace and holds for the shops there, or of one kind of channel and holds for all messages on
it. What a rule about addresses or telephone numbers forbids is forbidden whichever shop writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self, TypeVar, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from lifecycle.errors import ConfigError
from lifecycle.settings.models import Campaign, CapRule, Marketplace, Purpose, QuietHours, Section, Shop

PACKS = Path(__file__).parent / "packs"

ChannelKind = Literal[
    "email", "whatsapp", "aliexpress_messages", "amazon_solicitations", "amazon_messaging", "ebay_messages",
    "tiktok_engagement", "messenger", "webhook",
]  # fmt: skip
HOMES: Mapping[str, Marketplace] = {
    "aliexpress_messages": "aliexpress",
    "amazon_solicitations": "amazon",
    "amazon_messaging": "amazon",
    "ebay_messages": "ebay",
    "tiktok_engagement": "tiktok",
}
"""Kinds of channel inside a marketplace, and which."""

Basis = Literal["express", "double_opt_in", "soft_opt_in", "implied_purchase", "implied_inquiry"]
CountryCode = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
DomainPattern = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*(\.\*)?$")]
PhonePrefix = Annotated[str, Field(pattern=r"^\+[0-9]+$")]


class Rule(Section):
    """Something that somebody else wrote down, as it was read on a day."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="no other rule has it, nor a cap of the shop's")
    says: str = Field(min_length=1, description="the rule in one sentence")
    source: str = Field(min_length=1)
    dated: date = Field(description="when the source was read")
    verified: bool = Field(default=True, description="false: not found in the platform's or the law's own words")


class _PackRule(Rule):
    purposes: tuple[Purpose, ...] | None = Field(default=None, min_length=1, description="leave out for every one")
    channel_kinds: tuple[ChannelKind, ...] | None = Field(
        default=None, min_length=1, description="leave out for every one"
    )

    def concerns(self, purpose: str, channel_kind: str) -> bool:
        return (self.purposes is None or purpose in self.purposes) and (
            self.channel_kinds is None or channel_kind in self.channel_kinds
        )


class Forbid(_PackRule):
    """Not at all; with a condition, not to the people whom it fits, whichever shop writes."""

    kind: Literal["forbid"]
    address_domains: tuple[DomainPattern, ...] = Field(
        default=(), description="of the e-mail address; a star at the end is any ending: members.ebay.*"
    )
    unless_bases: tuple[Basis, ...] = Field(
        default=(), description="consent on one of these bases, to the shop that writes, lifts the condition"
    )
    phone_prefixes: tuple[PhonePrefix, ...] = ()
    phone_country: CountryCode | None = Field(
        default=None, description="of several with the prefix; a person of unknown country counts as of this one"
    )

    @model_validator(mode="after")
    def _conditions_fit(self) -> Self:
        if self.address_domains and self.phone_prefixes:
            raise ValueError("write a rule about addresses and one about telephone numbers")
        if self.unless_bases and not self.address_domains:
            raise ValueError("unless_bases goes with address_domains")
        if self.phone_country and not self.phone_prefixes:
            raise ValueError("phone_country goes with phone_prefixes")
        return self

    @property
    def is_personal(self) -> bool:
        return bool(self.address_domains or self.phone_prefixes)


class Cap(_PackRule):
    """At most `limit` messages to one person in a rolling window."""

    kind: Literal["cap"]
    limit: int = Field(ge=0)
    days: int = Field(gt=0)
    scope: Literal["customer", "customer_and_shop"]
    learns_from_refusals: bool = Field(
        default=False, description="others' messages count too; that the slots are taken is seen from a refusal"
    )


class OncePerOrder(_PackRule):
    """Once per order, from `earliest_days` to `latest_days` after its delivery, both included."""

    kind: Literal["once_per_order"]
    earliest_days: int = Field(ge=0)
    latest_days: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.latest_days < self.earliest_days:
            raise ValueError("latest_days must not be before earliest_days")
        return self


class Needs(_PackRule):
    """What a message must have, or must be."""

    kind: Literal["needs"]
    needs: tuple[Literal["consent", "opt_in", "template"], ...] = ()
    open_window_hours: int | None = Field(
        default=None, gt=0, description="so long after the person's last message none of it is needed"
    )
    ordered_within_days: int | None = Field(default=None, gt=0, description="the person ordered so lately")
    max_characters: int | None = Field(default=None, gt=0)


AnyRule = Annotated[Forbid | Cap | OncePerOrder | Needs, Field(discriminator="kind")]


class Pack(Section):
    marketplace: Marketplace | None = None
    channel: ChannelKind | None = None
    rules: tuple[AnyRule, ...]

    @property
    def name(self) -> str:
        return self.marketplace or self.channel or ""

    def concerning(self, purpose: str, channel_kind: str) -> Iterator[AnyRule]:
        """The rules about messages of this purpose on such a channel."""
        if self.channel in (None, channel_kind):
            yield from (rule for rule in self.rules if rule.concerns(purpose, channel_kind))


class ConsentRule(Rule):
    bases: tuple[Basis, ...] | None = Field(default=None, description="accepted; left out: none is needed")
    bases_strict: tuple[Basis, ...] | None = Field(default=None, description="what a cautious sender accepts")
    expires_months: dict[Basis, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)


class Reconfirm(Rule):
    years: int = Field(gt=0)


class SubjectMark(Rule):
    """`text` stands first in the subject, or one of the alternatives does. A space at its end belongs to it."""

    text: str = Field(min_length=1)
    alternatives: tuple[str, ...] = ()
    purposes: tuple[Purpose, ...] = Field(min_length=1)
    only_unsolicited: bool = Field(default=False, description="not on mail that the person agreed to")


class NightRest(Rule):
    hours: QuietHours


class Country(Section):
    """The law of one country, or of several with the same; `notes` are what no program can see to."""

    codes: tuple[CountryCode, ...] = ()
    consent: ConsentRule
    reconfirm: Reconfirm | None = None
    subject_mark: SubjectMark | None = None
    quiet_hours: NightRest | None = None
    notes: tuple[Rule, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        parts = (self.consent, self.reconfirm, self.subject_mark, self.quiet_hours)
        return (*(part for part in parts if part is not None), *self.notes)

    @property
    def consent_bases(self) -> tuple[str, ...] | None:
        """That the law accepts; None: all, it asks for none."""
        return self.consent.bases

    @property
    def implied_expires_months(self) -> Mapping[str, int]:
        """By basis, from the event that implied the consent on. A basis that is not here does not expire."""
        return {str(basis): months for basis, months in self.consent.expires_months.items()}

    @property
    def reconfirm_years(self) -> int | None:
        return self.reconfirm.years if self.reconfirm else None


class CountriesFile(Section):
    elsewhere: Country
    countries: tuple[Country, ...]


@dataclass(frozen=True)
class Policies:
    packs: Mapping[str, Pack]
    countries: Mapping[str, Country]
    elsewhere: Country

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them, each once."""
        laws = {id(law): law for law in (*self.countries.values(), self.elsewhere)}.values()
        return (
            *(rule for pack in self.packs.values() for rule in pack.rules),
            *(rule for law in laws for rule in law.rules),
        )


class Sends(Protocol):
    """What is asked of a channel of lifecycle.settings.channels, which cannot be imported here."""

    @property
    def kind(self) -> str: ...

    @property
    def shops(self) -> tuple[str, ...] | None: ...


class Configured(Protocol):
    """What is asked of lifecycle.settings.Config, which cannot be imported here."""

    @property
    def shops(self) -> Mapping[str, Shop]: ...

    @property
    def channels(self) -> Mapping[str, Sends]: ...


@dataclass(frozen=True)
class Draft:
    """A message that would be sent at `at`. `last_inbound_at`: the person's last message to us on this channel;
    `last_order_at`: their last order at the shop; aware, None where there is none."""

    purpose: Purpose
    channel_kind: ChannelKind
    at: datetime
    consent: bool = False
    opt_in: bool = False
    template: bool = False
    characters: int = 0
    last_inbound_at: datetime | None = None
    last_order_at: datetime | None = None


def read_policies(folder: Path) -> Policies:
    """Raises ConfigError, naming the file, where a pack is broken or missing, or two rules have one name."""
    law = _read(folder / "countries.yaml", CountriesFile)
    files = sorted(path for path in folder.glob("*.yaml") if path.name != "countries.yaml")
    packs = {path.stem: _read(path, Pack) for path in files}
    for stem, pack in packs.items():
        if (pack.marketplace is None) == (pack.channel is None) or pack.name != stem:
            raise ConfigError(f"packs/{stem}.yaml: must say marketplace: {stem} or channel: {stem}, like its name")
    for marketplace in get_args(Marketplace):
        if marketplace not in packs:
            raise ConfigError(f"packs/{marketplace}.yaml is missing: Tern is not installed completely")
    policies = Policies(packs, _by_code(law.countries), law.elsewhere)
    _unique((rule.name for rule in policies.rules), 'packs: two rules are named "{}"; rename one')
    return policies


@cache
def policies() -> Policies:
    return read_policies(PACKS)


def packs() -> Mapping[str, Pack]:
    """By the name of their marketplace or kind of channel."""
    return policies().packs


def countries() -> Mapping[str, Country]:
    """By ISO 3166-1 alpha-2 code; only those with rules of their own."""
    return policies().countries


def rules_of(shop: Shop) -> Pack:
    """Of the marketplace that the shop is on; none where its data come by file and it does not say whence."""
    return packs().get(shop.marketplace or shop.platform, Pack(rules=()))


def serves(channel: Sends, shop: Shop) -> bool:
    """Whether messages of `shop` may go out by this channel: it is meant for the shop, and inside a marketplace it
    reaches only the buyers there."""
    home = HOMES.get(channel.kind)
    return (channel.shops is None or shop.name in channel.shops) and home in (None, rules_of(shop).marketplace)


def cap_rules(config: Configured) -> tuple[CapRule, ...]:
    """The packs' caps for the shops and channels that are configured; which have none are left out."""
    return tuple(
        rule
        for pack in packs().values()
        for cap in pack.rules
        if isinstance(cap, Cap) and (rule := _concrete(cap, pack, config)) is not None
    )


def forbidding(campaign: Campaign, shop: Shop, channel_kind: str) -> Forbid | None:
    """The rule that forbids `shop` to send such a message to anybody."""
    return next(
        (rule for rule in _about(shop, campaign.purpose, channel_kind, Forbid) if not rule.is_personal), None
    )


def personal(purpose: str, channel_kind: str) -> tuple[Forbid, ...]:
    """The rules that forbid such a message to some people; they hold for every shop."""
    rules = (rule for pack in packs().values() for rule in pack.concerning(purpose, channel_kind))
    return tuple(rule for rule in rules if isinstance(rule, Forbid) and rule.is_personal)


def once_per_order(shop: Shop, purpose: str, channel_kind: str) -> OncePerOrder | None:
    return next(_about(shop, purpose, channel_kind, OncePerOrder), None)


def needs(shop: Shop, purpose: str, channel_kind: str) -> tuple[Needs, ...]:
    return tuple(_about(shop, purpose, channel_kind, Needs))


def missing(shop: Shop, draft: Draft) -> tuple[str, ...]:
    """Names of the rules whose needs `draft` does not meet."""
    rules = needs(shop, draft.purpose, draft.channel_kind)
    return tuple(rule.name for rule in rules if not _meets(draft, rule))


def subject_mark(country: str | None, purpose: str, *, solicited: bool = True) -> str | None:
    """What the subject of such a mail begins with. `solicited`: the person agreed to it."""
    mark = _law(country).subject_mark
    if mark is None or purpose not in mark.purposes or (solicited and mark.only_unsolicited):
        return None
    return mark.text


def quiet_hours_of(country: str | None) -> str | None:
    """In which the law forbids advertising, in the person's local time: `21:00-08:00`."""
    rest = _law(country).quiet_hours
    return rest.hours if rest else None


def consent_bases(country: str | None) -> tuple[str, ...] | None:
    """Bases of consent that the law of the country accepts; None: all, it asks for none.

    A country without rules of its own, or None, gets the strictest that is common.
    """
    return _law(country).consent_bases


_Kind = TypeVar("_Kind", Forbid, OncePerOrder, Needs)
_File = TypeVar("_File", bound=Section)


def implied_expiry() -> Mapping[str, Mapping[str, int]]:
    """By country and basis: after so many months an implied consent runs out."""
    return {code: law.implied_expires_months for code, law in countries().items() if law.implied_expires_months}


def _about(shop: Shop, purpose: str, channel_kind: str, kind: type[_Kind]) -> Iterator[_Kind]:
    """Rules of one kind about such a message of this shop: of the shop's marketplace, then of the channel."""
    for pack in (rules_of(shop), packs().get(channel_kind)):
        if pack is not None:
            yield from (rule for rule in pack.concerning(purpose, channel_kind) if isinstance(rule, kind))


def _law(country: str | None) -> Country:
    return countries().get(country or "", policies().elsewhere)


def _concrete(cap: Cap, pack: Pack, config: Configured) -> CapRule | None:
    shops = tuple(name for name, shop in config.shops.items() if rules_of(shop) is pack)
    kinds = cap.channel_kinds or ((pack.channel,) if pack.channel else get_args(ChannelKind))
    channels = tuple(name for name, channel in config.channels.items() if channel.kind in kinds)
    if not channels or (pack.marketplace and not shops):
        return None
    return CapRule(
        name=cap.name,
        limit=cap.limit,
        days=cap.days,
        scope=cap.scope,
        purposes=cap.purposes,
        shops=shops if pack.marketplace else None,
        channels=channels,
        learns_from_refusals=cap.learns_from_refusals,
    )


def _meets(draft: Draft, rule: Needs) -> bool:
    since_inbound, since_order = _since(draft.last_inbound_at, draft), _since(draft.last_order_at, draft)
    if rule.open_window_hours and since_inbound <= timedelta(hours=rule.open_window_hours):
        return True
    return (
        all(getattr(draft, need) for need in rule.needs)
        and (rule.max_characters is None or draft.characters <= rule.max_characters)
        and (rule.ordered_within_days is None or since_order <= timedelta(days=rule.ordered_within_days))
    )


def _since(earlier: datetime | None, draft: Draft) -> timedelta:
    return draft.at - earlier if earlier else timedelta.max


def _read(path: Path, model: type[_File]) -> _File:
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"packs/{path.name} is missing: Tern is not installed completely") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"packs/{path.name}: {' '.join(str(error).split())}") from None


def _by_code(laws: Iterable[Country]) -> Mapping[str, Country]:
    laws = list(laws)
    _unique((code for law in laws for code in law.codes), "packs/countries.yaml: {} is there twice; keep one")
    return {code: law for law in laws for code in law.codes}


def _unique(names: Iterable[str], problem: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(problem.format(name))
        seen.add(name)
