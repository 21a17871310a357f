"""The packs say what the platforms and the law say: every rule, with its numbers, and what it does."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from lifecycle.errors import ConfigError
from lifecycle.settings import Config
from lifecycle.settings.models import CapRule, Marketplace, Purpose, Shop
from lifecycle.settings.policies import (
    PACKS,
    ChannelKind,
    Draft,
    Forbid,
    Needs,
    OncePerOrder,
    Rule,
    cap_rules,
    consent_bases,
    countries,
    forbidding,
    missing,
    once_per_order,
    packs,
    personal,
    policies,
    quiet_hours_of,
    read_policies,
    rules_of,
    subject_mark,
)

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
KINDS: tuple[ChannelKind, ...] = get_args(ChannelKind)
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
EVERY_KIND = set(KINDS)

FORBIDS_EVERYBODY: dict[str, tuple[str, set[str], set[str]]] = {
    # rule: at, purposes, channels
    "amazon_no_marketing": ("amazon", {"marketing"}, EVERY_KIND),
    "ebay_no_marketing": ("ebay", {"marketing"}, EVERY_KIND),
    "tiktok_no_marketing_by_mail": ("tiktok", {"marketing"}, {"email"}),
}
FORBIDS_SOME: dict[str, tuple[set[str], set[str], dict[str, Any]]] = {
    # rule: purposes, channels, whom
    "amazon_relay_addresses": ({"marketing"}, {"email"}, {"address_domains": ("marketplace.amazon.*",)}),
    "ebay_relay_addresses": ({"marketing"}, {"email"}, {"address_domains": ("members.ebay.*",)}),
    "email_apple_relay_addresses": (
        {"marketing"},
        {"email"},
        {"address_domains": ("privaterelay.appleid.com",), "unless_bases": ("express", "double_opt_in")},
    ),
    "whatsapp_no_marketing_to_us": (
        {"marketing"},
        {"whatsapp"},
        {"phone_prefixes": ("+1",), "phone_country": "US"},
    ),
}
CAPS: dict[str, tuple[str, str, int, int, str, bool]] = {
    # rule: at, channel, limit, days, scope, learns from refusals
    "aliexpress_mail_1_per_14_days": ("aliexpress", "email", 1, 14, "customer_and_shop", False),
    "aliexpress_mail_2_per_7_days": ("aliexpress", "email", 2, 7, "customer", True),
    "aliexpress_message_1_per_30_days": ("aliexpress", "aliexpress_messages", 1, 30, "customer_and_shop", False),
}
ONCE_PER_ORDER: dict[str, tuple[str, set[str], int, int]] = {
    # rule: at, purposes, from, until so many days after delivery
    "amazon_one_review_request_per_order": ("amazon", {"review_request"}, 5, 30),
}
DAYS, HOURS, TICK = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
NEEDS: dict[str, tuple[str, set[str], str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    # rule: at, purposes, channel, drafts that meet it, drafts that do not
    "shopify_consent": ("shopify", {"marketing"}, "email", [{"consent": True}], [{"opt_in": True}]),
    "woocommerce_own_consent": ("woocommerce", {"marketing"}, "email", [{"consent": True}], [{}]),
    "ebay_message_within_90_days": (
        "ebay",
        set(PURPOSES),
        "ebay_messages",
        [{"last_order_at": NOW - 90 * DAYS}],
        [{"last_order_at": NOW - 90 * DAYS - TICK}, {"last_order_at": None}],
    ),
    "ebay_message_2000_characters": (
        "ebay",
        set(PURPOSES),
        "ebay_messages",
        [{"characters": 2000}],
        [{"characters": 2001}],
    ),
    "tiktok_ordered_within_365_days": (
        "tiktok",
        set(PURPOSES),
        "tiktok_engagement",
        [{"last_order_at": NOW - 365 * DAYS}],
        [{"last_order_at": NOW - 365 * DAYS - TICK}, {"last_order_at": None}],
    ),
    "tiktok_message_500_characters": (
        "tiktok",
        set(PURPOSES),
        "tiktok_engagement",
        [{"characters": 500}],
        [{"characters": 501}],
    ),
    "whatsapp_opt_in": (
        "shopify",
        set(PURPOSES),
        "whatsapp",
        [{"opt_in": True}],
        [{"opt_in": False}, {"last_inbound_at": NOW}],
    ),
    "whatsapp_template_outside_window": (
        "shopify",
        set(PURPOSES),
        "whatsapp",
        [{"template": True}, {"last_inbound_at": NOW - 24 * HOURS}],
        [{"last_inbound_at": NOW - 24 * HOURS - TICK}, {"last_inbound_at": None}],
    ),
    "messenger_opt_in_outside_window": (
        "shopify",
        {"marketing"},
        "messenger",
        [{"opt_in": True}, {"last_inbound_at": NOW - 24 * HOURS}],
        [{"last_inbound_at": NOW - 24 * HOURS - TICK}, {"last_inbound_at": None}],
    ),
}
OTHERS_IN_EU = [
    "BE", "BG", "CY", "CZ", "DK", "EE", "ES", "FI", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MT", "NL",
    "PL", "PT", "RO", "SE", "SI", "SK",
]  # fmt: skip
OPT_IN = ("express", "double_opt_in")
SOFT = (*OPT_IN, "soft_opt_in")
CONSENT: dict[str, tuple[list[str], set[str] | None, dict[str, int]]] = {
    # rule: countries, accepted bases, months after which they expire
    "elsewhere_consent": (["", "BR", "ZA"], set(SOFT), {}),
    "eu_consent": (OTHERS_IN_EU, set(SOFT), {}),
    "fr_consent": (["FR"], set(SOFT), {}),
    "de_consent": (["DE"], set(SOFT), {}),
    "at_consent": (["AT"], set(SOFT), {}),
    "gb_consent": (["GB"], set(SOFT), {}),
    "us_opt_out": (["US"], None, {}),
    "ca_consent": (
        ["CA"],
        {*SOFT, "implied_purchase", "implied_inquiry"},
        {"implied_purchase": 24, "implied_inquiry": 6, "soft_opt_in": 24},
    ),
    "cn_consent": (["CN"], set(OPT_IN), {}),
    "kr_consent": (["KR"], {*SOFT, "implied_purchase"}, {"implied_purchase": 6, "soft_opt_in": 6}),
    "sg_opt_out": (["SG"], None, {}),
    "jp_consent": (["JP"], {*SOFT, "implied_purchase"}, {}),
    "au_consent": (["AU"], set(OPT_IN), {}),
}
MARKS: dict[str, tuple[str, str, str | None, tuple[str, ...]]] = {
    # rule: country, of unsolicited mail, of mail that was agreed to, as good
    "cn_subject_mark": ("CN", "广告", "广告", ("AD",)),
    "kr_subject_mark": ("KR", "(광고)", "(광고)", ()),
    "sg_subject_mark": ("SG", "<ADV> ", None, ()),
}
NIGHTS = {"kr_night": ("KR", "21:00-08:00")}
RECONFIRM = {"kr_reconfirm": ("KR", 2)}
NOTES = {
    "fr_open_tracking": ("FR", "global anonymous open rate"),
    "at_ecg_list": ("AT", "ECG list"),
    "us_postal_address": ("US", "valid postal address"),
    "ca_unsubscribe": ("CA", "60 days"),
    "ca_asking_is_a_message": ("CA", "is itself a commercial message"),
    "kr_sender": ("KR", "free way to opt out"),
    "jp_sender": ("JP", "contact for complaints"),
    "au_unsubscribe": ("AU", "5 working days"),
}
UNVERIFIED = {
    "aliexpress_mail_1_per_14_days", "aliexpress_mail_2_per_7_days", "aliexpress_message_1_per_30_days",
    "woocommerce_own_consent", "email_apple_relay_addresses", "elsewhere_consent", "fr_open_tracking",
    "de_consent", "ca_consent", "ca_unsubscribe", "kr_reconfirm",
}  # fmt: skip


@dataclass
class Settings:
    """What the packs ask of a configuration, also with kinds of channels that it cannot have yet."""

    shops: dict[str, Shop]
    channels: dict[str, Any]


@dataclass
class Channel:
    kind: str


@pytest.fixture
def shops(config: Config) -> dict[str, Shop]:
    """One of each marketplace, by its name."""
    atlas = config.shop("atlas").model_dump() | {"platform": "file"}
    return {
        name: Shop.model_validate(atlas | {"name": name, "marketplace": name}) for name in get_args(Marketplace)
    }


def rule_named(name: str) -> Any:
    return next(rule for rule in policies().rules if rule.name == name)


def test_no_rule_is_without_a_test() -> None:
    tested: list[str] = [
        name
        for table in (
            FORBIDS_EVERYBODY, FORBIDS_SOME, CAPS, ONCE_PER_ORDER, NEEDS, CONSENT, MARKS, NIGHTS, RECONFIRM, NOTES,
        )
        for name in table
    ]  # fmt: skip
    assert sorted(tested) == sorted(rule.name for rule in policies().rules)


def test_every_rule_says_what_it_is_where_it_stands_and_when_it_was_read() -> None:
    rules = policies().rules
    assert len(rules) > 40
    for rule in rules:
        assert rule.says.endswith(".") and rule.source
        assert rule.dated == date(2026, 11, 22)
    assert {rule.name for rule in rules if not rule.verified} == UNVERIFIED


def test_there_is_a_pack_for_every_marketplace() -> None:
    assert set(packs()) == {*get_args(Marketplace), "email", "whatsapp", "messenger"}


@pytest.mark.parametrize("name", FORBIDS_EVERYBODY)
def test_what_is_forbidden_altogether(name: str, config: Config, shops: dict[str, Shop]) -> None:
    at, purposes, kinds = FORBIDS_EVERYBODY[name]
    winback = config.campaign("winback")
    found = {
        (shop, purpose, kind)
        for shop in shops
        for purpose in PURPOSES
        for kind in KINDS
        if (rule := forbidding(winback.model_copy(update={"purpose": purpose}), shops[shop], kind))
        and rule.name == name
    }
    assert found == {(at, purpose, kind) for purpose in purposes for kind in kinds}


@pytest.mark.parametrize("name", FORBIDS_SOME)
def test_what_is_forbidden_to_some_people(name: str, config: Config, shops: dict[str, Shop]) -> None:
    """Their effect on people is in tests/planning/test_policy.py."""
    purposes, kinds, conditions = FORBIDS_SOME[name]
    rule = rule_named(name)
    assert isinstance(rule, Forbid)
    fields = ("address_domains", "unless_bases", "phone_prefixes", "phone_country")
    assert {field: value for field in fields if (value := getattr(rule, field))} == conditions
    concerned = {(purpose, kind) for purpose in PURPOSES for kind in KINDS if rule in personal(purpose, kind)}
    assert concerned == {(purpose, kind) for purpose in purposes for kind in kinds}
    campaign = config.campaign("winback")
    assert all(forbidding(campaign, shop, kind) != rule for shop in shops.values() for kind in kinds)


@pytest.mark.parametrize("name", CAPS)
def test_caps_of_a_marketplace_for_its_shops_and_channels(name: str, shops: dict[str, Shop]) -> None:
    at, kind, limit, days, scope, learns = CAPS[name]
    second = shops[at].model_copy(update={"name": "second"})
    channels = {f"our_{each}": Channel(each) for each in KINDS}
    found = {rule.name: rule for rule in cap_rules(Settings({**shops, "second": second}, channels))}
    assert found[name] == CapRule(
        name=name,
        limit=limit,
        days=days,
        scope=scope,  # type: ignore[arg-type]
        purposes=("marketing",),
        shops=(at, "second"),
        channels=(f"our_{kind}",),
        learns_from_refusals=learns,
    )


def test_caps_without_a_shop_or_a_channel_are_left_out(config: Config, shops: dict[str, Shop]) -> None:
    assert cap_rules(config) == ()
    mail = {"email": Channel("email")}
    assert cap_rules(Settings({"amazon": shops["amazon"]}, mail)) == ()
    ours = Settings({"aliexpress": shops["aliexpress"]}, mail)
    assert [rule.name for rule in cap_rules(ours)] == [
        "aliexpress_mail_1_per_14_days",
        "aliexpress_mail_2_per_7_days",
    ]


@pytest.mark.parametrize("name", ONCE_PER_ORDER)
def test_once_per_order(name: str, shops: dict[str, Shop]) -> None:
    """Its effect on people is in tests/planning/test_policy.py."""
    at, purposes, earliest_days, latest_days = ONCE_PER_ORDER[name]
    rule = rule_named(name)
    assert isinstance(rule, OncePerOrder)
    assert (rule.earliest_days, rule.latest_days) == (earliest_days, latest_days)
    found = {
        (shop, purpose)
        for shop in shops
        for purpose in PURPOSES
        for kind in KINDS
        if once_per_order(shops[shop], purpose, kind) == rule
    }
    assert found == {(at, purpose) for purpose in purposes}


@pytest.mark.parametrize("name", NEEDS)
def test_what_a_message_needs(name: str, shops: dict[str, Shop]) -> None:
    at, purposes, kind, enough, too_little = NEEDS[name]
    assert isinstance(rule_named(name), Needs)
    for purpose in PURPOSES:
        draft = Draft(purpose, kind, NOW)  # type: ignore[arg-type]
        for fields in enough:
            assert name not in missing(shops[at], replace(draft, **fields))
        for fields in too_little:
            assert (name in missing(shops[at], replace(draft, **fields))) == (purpose in purposes)


def test_a_need_of_one_channel_is_none_of_another(shops: dict[str, Shop]) -> None:
    assert missing(shops["ebay"], Draft("marketing", "email", NOW, characters=9000)) == ()
    assert missing(shops["amazon"], Draft("marketing", "whatsapp", NOW)) == (
        "whatsapp_opt_in",
        "whatsapp_template_outside_window",
    )


@pytest.mark.parametrize("name", CONSENT)
def test_the_consent_that_a_country_asks_for(name: str) -> None:
    codes, bases, months = CONSENT[name]
    for code in codes:
        found = consent_bases(code or None)
        assert (None if found is None else set(found)) == bases
        law = countries().get(code, policies().elsewhere)
        assert law.consent.name == name
        assert law.implied_expires_months == months


def test_double_opt_in_is_what_a_cautious_sender_accepts_in_germany_and_austria() -> None:
    strict = {code: law.consent.bases_strict for code, law in countries().items() if law.consent.bases_strict}
    assert strict == dict.fromkeys(["DE", "AT"], ("double_opt_in", "soft_opt_in"))


@pytest.mark.parametrize("name", MARKS)
def test_how_a_subject_begins(name: str) -> None:
    country, unsolicited, solicited, alternatives = MARKS[name]
    assert rule_named(name).alternatives == alternatives
    assert subject_mark(country, "marketing", solicited=False) == unsolicited
    assert subject_mark(country, "marketing") == solicited
    assert subject_mark(country, "transactional") is subject_mark(country, "review_request") is None


@pytest.mark.parametrize("name", NIGHTS)
def test_when_a_country_wants_quiet(name: str) -> None:
    country, hours = NIGHTS[name]
    assert quiet_hours_of(country) == hours


@pytest.mark.parametrize("name", RECONFIRM)
def test_when_consent_is_asked_for_again(name: str) -> None:
    country, years = RECONFIRM[name]
    assert countries()[country].reconfirm_years == years


def test_other_countries_have_none_of_it() -> None:
    other: Iterable[str | None] = [None, "BR", *(code for code in countries() if code not in ("CN", "KR", "SG"))]
    for code in other:
        assert subject_mark(code, "marketing", solicited=False) is quiet_hours_of(code) is None
    assert [code for code, law in countries().items() if law.reconfirm_years] == ["KR"]


@pytest.mark.parametrize("name", NOTES)
def test_what_no_program_can_see_to_is_said(name: str) -> None:
    country, words = NOTES[name]
    rule = rule_named(name)
    assert words in rule.says
    assert rule in countries()[country].notes and type(rule) is Rule


def test_the_pack_of_a_shop(config: Config, shops: dict[str, Shop]) -> None:
    assert rules_of(config.shop("atlas")).name == "shopify"
    assert rules_of(config.shop("harbour")).name == "woocommerce"
    assert {name: rules_of(shop).name for name, shop in shops.items()} == {name: name for name in shops}
    by_file = shops["amazon"].model_copy(update={"marketplace": None})
    assert rules_of(by_file).rules == ()
    assert forbidding(config.campaign("winback"), by_file, "email") is None


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("amazon", "earliest_days: 5", "earliest_dayz: 5", "packs/amazon.yaml: .*earliest_dayz"),
        ("amazon", "earliest_days: 5", "earliest_days: 31", "latest_days must not be before earliest_days"),
        ("amazon", "kind: forbid", "kind: allow", "packs/amazon.yaml: .*kind"),
        ("amazon", "marketplace: amazon", "marketplace: ebay", "packs/amazon.yaml: must say marketplace: amazon"),
        ("amazon", "dated: 2026-11-22", "dated: lately", "packs/amazon.yaml: .*dated"),
        ("ebay", "ebay_no_marketing", "amazon_no_marketing", 'two rules are named "amazon_no_marketing"'),
        ("email", "privaterelay.appleid.com", "'%.com'", "packs/email.yaml: .*address_domains"),
        ("whatsapp", 'phone_prefixes: ["+1"]', "", "phone_country goes with phone_prefixes"),
        ("countries", "[CA]", "[CA, FR]", "packs/countries.yaml: FR is there twice"),
        ("countries", "hours: 21:00-08:00", "hours: late", "packs/countries.yaml: .*quiet hours"),
        ("messenger", "rules:", "rules: [", "packs/messenger.yaml: "),
    ],
)
def test_a_broken_pack_fails_loudly(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    folder = Path(shutil.copytree(PACKS, tmp_path / "packs"))
    path = folder / f"{file}.yaml"
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        read_policies(folder)


@pytest.mark.parametrize("name", ["tiktok", "countries"])
def test_a_missing_pack_fails_loudly(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(PACKS, tmp_path / "packs"))
    (folder / f"{name}.yaml").unlink()
    with pytest.raises(ConfigError, match=f"packs/{name}.yaml is missing"):
        read_policies(folder)
