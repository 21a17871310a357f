"""Rules and campaigns that contradict each other, the platforms or the shops: said at `tern check`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.errors import ConfigError
from lifecycle.settings import ROOT, load_config

MARKETING_AT_AMAZON = (
    'amazon forbids it (amazon_no_marketing): "You cannot contact buyers for marketing or promotional purposes '
    '(including via email, physical mail, telephone, or otherwise)" (sellercentral.amazon.co.uk, '
    '"Communication Guidelines - Permitted messages", by Amazon staff, read 2026-11-22)'
)
Check = Callable[..., str]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """What is wrong with the project's config after changes of `shops`, `campaigns`, `caps`: one a line."""
    folder = Path(shutil.copytree(ROOT / "config", tmp_path / "config"))

    def told(**changes: Callable[[Any], object]) -> str:
        for name, change in changes.items():
            path = folder / f"{name}.yaml"
            content = yaml.safe_load(path.read_text())
            change(content)
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        try:
            load_config(folder, env={})
        except ConfigError as error:
            return str(error)
        return ""

    return told


def bazaar(file: Any, **fields: Any) -> None:
    """A shop at Amazon whose orders come by file."""
    shop = file["shops"][0] | {"name": "bazaar", "platform": "file", "marketplace": "amazon"} | fields
    file["shops"].append(shop)


def winback(**fields: Any) -> Callable[[Any], object]:
    return lambda file: file["campaigns"][1].update(fields)


def cap(**fields: Any) -> Callable[[Any], object]:
    return lambda file: file["caps"].append({"name": "more", "limit": 3, "days": 9} | fields)


def quota(**fields: Any) -> Callable[[Any], object]:
    return lambda file: file.update(quotas=[{"name": "budget", "limit": 900, "days": 1} | fields])


def test_marketing_at_a_shop_whose_platform_forbids_it(check: Check) -> None:
    assert check(shops=bazaar, campaigns=winback(shops=["atlas", "bazaar"])) == (
        f'config/campaigns.yaml: winback.shops "bazaar": {MARKETING_AT_AMAZON}; leave the shop out'
    )


def test_a_campaign_of_all_shops_may_reach_some_that_forbid_it(check: Check) -> None:
    assert check(shops=bazaar) == ""


def test_a_campaign_of_all_shops_needs_one_that_may_send_it(check: Check) -> None:
    told = check(shops=lambda file: [shop.update(marketplace="amazon") for shop in file["shops"]])
    assert told.splitlines() == [
        f"config/campaigns.yaml: {name}.shops is left out, and no shop may send it: {MARKETING_AT_AMAZON}; "
        "give the campaign another channel or purpose, or leave it out"
        for name in ("vip_thanks", "winback")
    ]


@pytest.mark.parametrize("purpose", ["transactional", "review_request"])
def test_other_purposes_than_marketing_may_name_the_shop(check: Check, purpose: str) -> None:
    assert check(shops=bazaar, campaigns=winback(shops=["bazaar"], purpose=purpose, hold_out=0)) == ""


def test_unknown_channel_and_shop_are_told_once(check: Check) -> None:
    assert check(campaigns=winback(channel="emial", shops=["atlass"])).splitlines() == [
        'config/campaigns.yaml: winback.channel "emial" is not defined; did you mean "email"?',
        'config/campaigns.yaml: winback.shops "atlass" is not defined; did you mean "atlas"?',
    ]


WHATSAPP = {"name": "wa", "kind": "whatsapp", "url": "http://localhost", "phone_number_id": "1", "token_env": "X"}
EBAY = {"name": "bay", "kind": "ebay_messages", "url": "http://localhost"} | dict.fromkeys(
    ("client_id_env", "client_secret_env", "refresh_token_env"), "X"
)


def channels(*more: dict[str, Any], **email: Any) -> Callable[[Any], object]:
    def change(file: Any) -> None:
        file["channels"][0].update(email)
        file["channels"] += more

    return change


def test_channels_to_fall_back_to_exist_and_are_others(check: Check) -> None:
    told = check(channels=channels(WHATSAPP), campaigns=winback(fallback=["email", "wa", "wb", "wa"]))
    assert told.splitlines() == [
        'config/campaigns.yaml: winback.fallback "wb" is not defined; known: email, wa',
        'config/campaigns.yaml: winback.fallback "wa" is there twice; leave one out',
        'config/campaigns.yaml: winback.fallback "email" is the channel of the campaign itself; leave it out',
    ]
    assert check(campaigns=winback(fallback=["wa"])) == ""


def test_a_channel_to_fall_back_to_needs_a_shop_that_may_send_by_it(check: Check) -> None:
    def at_ebay(file: Any) -> None:
        bazaar(file, marketplace="ebay")

    told = check(shops=at_ebay, channels=channels(EBAY), campaigns=winback(fallback=["bay"]))
    where = 'config/campaigns.yaml: winback.fallback "bay"'
    assert told.startswith(f"{where}: no shop may send it there: ebay forbids it (ebay_no_marketing)")
    assert told.endswith("; leave it out")
    assert check(campaigns=winback(fallback=["bay"], purpose="review_request")) == ""
    told = check(campaigns=winback(shops=["atlas"]))
    assert told == 'config/campaigns.yaml: winback.fallback "bay" sends for none of the shops atlas; name another'


def test_a_campaigns_channel_sends_for_one_of_its_shops(check: Check) -> None:
    told = check(channels=channels(shops=["harbour"]), campaigns=winback(shops=["atlas"]))
    assert told == 'config/campaigns.yaml: winback.channel "email" sends for none of the shops atlas; name another'
    assert check(campaigns=winback(shops=["atlas", "harbour"])) == ""


def test_the_shops_and_providers_of_a_channel_exist(check: Check) -> None:
    account = {"name": "second", "shops": ["atlass"], "smtp": {"host": "localhost", "port": 25}}
    told = check(
        channels=channels(
            EBAY, shops=["atlas", "harbr"], accounts=[account], mailbox_providers={"gogle": {"connections": 1}}
        )
    )
    assert told.splitlines() == [
        'config/channels.yaml: email.shops "harbr" is not defined; did you mean "harbour"?',
        'config/channels.yaml: email.mailbox_providers "gogle" is not known; did you mean "google"?',
        'config/channels.yaml: email.accounts[second].shops "atlass" is not defined; did you mean "atlas"?',
        "config/channels.yaml: bay sends for no shop: none is on ebay; leave the channel out",
    ]


def test_a_marketplaces_channel_reaches_the_buyers_of_shops_there(check: Check) -> None:
    told = check(channels=channels(EBAY | {"shops": ["atlas"]}))
    assert told == (
        'config/channels.yaml: bay.shops "atlas" is not on ebay, and ebay_messages reaches buyers there only; '
        "leave it out, or give the shop marketplace: ebay in config/shops.yaml"
    )


@pytest.mark.parametrize(
    ("more", "through"),
    [
        ([WHATSAPP | {"url": "https://graph.example.com/v1"}], "wa sends through graph.example.com"),
        ([{"name": "es", "kind": "email", "bounce_domain": "b.atlas.shop", "api": {"service": "postmark",
           "key_env": "X"}}], "es sends through postmark"),
        ([{"name": "es", "kind": "email", "bounce_domain": "b.atlas.shop", "api": {"service": "postmark",
           "key_env": "X", "url": "http://localhost:1/x"}}], None),
        ([WHATSAPP], None),
    ],
)  # fmt: skip
def test_what_leaves_this_machine_has_links_that_work_elsewhere(
    check: Check, more: list[dict[str, Any]], through: str | None
) -> None:
    told = check(channels=channels(*more))
    assert told == ("" if through is None else (
        'config/channels.yaml: tracking.base_url "http://localhost:8025" must be an https address that recipients '
        f"can reach, because {through}; set TERN_TRACKING_URL"
    ))  # fmt: skip


def test_a_transactional_message_is_kept_from_nobody(check: Check) -> None:
    assert check(campaigns=winback(purpose="transactional")) == (
        'config/campaigns.yaml: winback.hold_out "0.1": nobody may be left out of a transactional message; leave '
        "hold_out out, or give the campaign another purpose"
    )


@pytest.mark.parametrize("rule", [cap, quota])
@pytest.mark.parametrize(
    ("field", "wrong", "told"),
    [
        ("channels", "emial", 'is not defined; did you mean "email"?'),
        ("shops", "atals", 'is not defined; did you mean "atlas"?'),
        ("campaigns", "winbak", 'is not defined; did you mean "winback"?'),
        ("tags", "sprng", 'is on no campaign; did you mean "spring"?'),
    ],
)
def test_a_rule_about_what_does_not_exist(
    check: Check, rule: Callable[..., Any], field: str, wrong: str, told: str
) -> None:
    name = "more" if rule is cap else "budget"
    found = check(caps=rule(**{field: [wrong]}), campaigns=winback(tags=["spring"]))
    assert found == f'config/caps.yaml: {name}.{field} "{wrong}" {told}'


def test_a_cap_for_a_segment_that_does_not_exist(check: Check) -> None:
    assert check(caps=cap(segments=["vips"])) == (
        'config/caps.yaml: more.segments "vips" is not defined; did you mean "vip"?'
    )


def test_a_tag_where_no_campaign_has_one(check: Check) -> None:
    assert check(caps=cap(tags=["spring"])) == (
        'config/caps.yaml: more.tags "spring" is on no campaign; none are defined'
    )


def test_two_rules_of_one_name(check: Check) -> None:
    def twice(file: Any) -> None:
        one = {"name": "budget", "limit": 9, "days": 1}
        file["caps"] += [one | {"days": 2}, one | {"days": 3}]
        file["quotas"] = [one, one]

    assert check(caps=twice).splitlines() == [
        'config/caps.yaml: two caps are named "budget"; rename one',
        'config/caps.yaml: two quotas are named "budget"; rename one',
        'config/caps.yaml: a cap and a quota are both named "budget"; rename one',
        'config/caps.yaml: a cap and a quota are both named "budget"; rename one',
    ]


@pytest.mark.parametrize("rule", [cap, quota])
def test_a_rule_with_the_name_of_a_platforms(check: Check, rule: Callable[..., Any]) -> None:
    assert check(caps=rule(name="aliexpress_mail_1_per_14_days")) == (
        'config/caps.yaml: "aliexpress_mail_1_per_14_days" is the name of a rule that Tern comes with; rename '
        "yours"
    )


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (3, "with limits 2 and 3: more can never be reached"),
        (1, "with limits 2 and 1: email_2_per_7_days can never be reached"),
        (2, "with limits 2 and 2: more can never be reached"),
    ],
)
@pytest.mark.parametrize("window", [{"days": 7}, {"days": None, "hours": 168}])
def test_two_caps_that_differ_in_their_limit_alone(
    check: Check, limit: int, told: str, window: dict[str, Any]
) -> None:
    assert check(caps=cap(channels=["email"], limit=limit, **window)) == (
        f"config/caps.yaml: email_2_per_7_days and more count the same messages, {told}; leave it out"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"days": 8},
        {"scope": "customer_and_shop"},
        {"shops": ["atlas"]},
        {"purposes": ["marketing"]},
        {"segments": ["vip"]},
        {"limit": None},
    ],
)
def test_caps_that_differ_otherwise_may_both_be_meant(check: Check, other: dict[str, Any]) -> None:
    assert check(caps=cap(**{"channels": ["email"], "days": 7} | other)) == ""


def test_a_rule_whose_campaigns_go_through_other_channels(check: Check) -> None:
    def second_channel(file: Any) -> None:
        file["channels"].append(file["channels"][0] | {"name": "letters"})

    assert check(channels=second_channel, caps=cap(campaigns=["winback", "vip_thanks"], channels=["letters"])) == (
        "config/caps.yaml: more can never apply: its campaigns (winback, vip_thanks) go through email and none of "
        "its channels (letters); leave channels out, or name other campaigns"
    )
    assert check(caps=lambda file: file["caps"][-1].update(channels=["email", "letters"])) == ""
    assert (
        check(
            caps=lambda file: file["caps"][-1].update(channels=["letters"]),
            campaigns=winback(fallback=["letters"]),
        )
        == ""
    ), "that is where the campaign falls back to"


def test_a_quota_without_the_level_of_a_shop(check: Check) -> None:
    def levels(file: Any) -> None:
        file["shops"][0]["service_level"] = "gold"
        file["shops"][1]["service_level"] = "silvr"

    told = check(shops=levels, caps=quota(limit={"gold": 500, "silver": 100}))
    assert told == (
        'config/caps.yaml: budget.limit has none for service_level "silvr" of shop harbour; did you mean "silver"?'
        "; add it, correct the shop in config/shops.yaml, or name the shops that are meant in budget.shops"
    )
    assert check(caps=lambda file: file["quotas"][0].update(shops=["atlas"])) == ""


def test_a_ramp_that_goes_above_its_quota(check: Check) -> None:
    per_day = {"days": None, "per": "day", "timezone": "Europe/Paris"}
    ramp = {"starts_on": "2026-11-22", "limits": [100, 500, 1000]}
    assert check(caps=quota(**per_day, limit=900, ramp=ramp)) == (
        'config/caps.yaml: budget.ramp.limits "1000" is above the limit 900 of the quota itself; leave it out, or '
        "raise limit"
    )
    assert check(caps=lambda file: file["quotas"][0].update(limit=1000)) == ""
    assert check(caps=lambda file: file["quotas"][0].update(limit=None)) == ""
