"""What a plan would send, as it is shown to whoever must approve it."""

from __future__ import annotations

import email
import email.policy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.db.schema import customers, plans, verdicts
from lifecycle.errors import ConfigError, UsageError
from lifecycle.messages.compose import Composer, Recipient
from lifecycle.messages.headers import marked_subject
from lifecycle.messages.links import prepare_links
from lifecycle.messages.samples import STAND_IN, add_samples, content_hash, content_hash_now
from lifecycle.planning.guards import notes, sample_rows
from lifecycle.planning.plan import load_plan
from lifecycle.settings import ROOT, Config, Environment
from tests.ledger.people import add_people, add_plan, numbered
from tests.planning.people import change, clear

Spoil = Callable[[str, str, str], None]


@pytest.fixture
def spoilt(environment: Environment, templates: Path) -> Environment:
    """The environment with templates that a test may change."""
    return replace(environment, templates_dir=templates)


def settle(engine: Engine, customer_id: int, **columns: Any) -> None:
    """Other columns of somebody's verdict."""
    change(engine, verdicts, verdicts.c.customer_id == customer_id, **columns)


def test_one_sample_for_each_language_and_shop(engine: Engine, config: Config, environment: Environment) -> None:
    people = add_people(engine, numbered(6), name="Grace Hopper")
    plan_id = add_plan(engine, config, people[:5], others={people[5]: "capped"})
    settle(engine, people[1], locale="fr")
    settle(engine, people[2], locale="fr", shop="harbour", verdict="quiet_hours")
    plan = add_samples(engine, config, environment, plan_id)
    assert plan == load_plan(engine, plan_id)
    assert sample_rows(plan) == [
        {"language": language, "shop": shop, "law": "", "recipients": recipients, "subject": subject}
        for language, shop, recipients, subject in (
            ("en", "atlas", 3, "Ada, it has been a while"),
            ("fr", "atlas", 1, "Ada, cela fait longtemps…"),
            ("fr", "harbour", 1, "Ada, cela fait longtemps…"),
        )
    ]
    assert plan.summary is not None
    french = plan.summary["samples"][2]
    for part in (french["text"], french["html"]):
        assert "Bonjour Ada," in part
        assert "https://harbour.example.com/new" in part and "https://unsubscribe.invalid/" in part
    assert not {"\ue002", "\ue003"} & set(french["text"])
    assert plan.needs_approval == ()


def test_nobody_s_data_is_in_it(engine: Engine, config: Config, environment: Environment) -> None:
    people = add_people(engine, ["grace@example.net"], name="Grace Hopper")
    plan = add_samples(engine, config, environment, add_plan(engine, config, people))
    told = json.dumps(plan.summary)
    assert "Grace" not in told and "example.net" not in told
    assert config.channels_file.tracking.base_url not in told


def test_recipients_without_a_name_count_where_a_template_greets_by_name(
    engine: Engine, config: Config, spoilt: Environment, spoil: Spoil
) -> None:
    people = add_people(engine, numbered(4))
    for customer_id, name in zip(people, (None, "  ", "Ada", None), strict=True):
        change(engine, customers, customers.c.customer_id == customer_id, name=name)
    plan_id = add_plan(engine, config, people)
    settle(engine, people[3], locale="fr")
    plan = add_samples(engine, config, spoilt, plan_id)
    assert plan.summary is not None and plan.summary["empty_fields"] == {"customer.first_name": 3}
    assert list(notes(plan)) == ["customer.first_name is empty for 3 of 4 recipients"]
    assert plan.needs_approval == ()

    french = spoilt.templates_dir / "winback" / "fr.html"
    french.write_text(french.read_text(encoding="utf-8").replace("customer.first_name", "shop.name"))
    plan = add_samples(engine, config, spoilt, plan_id)
    assert plan.summary is not None and plan.summary["empty_fields"] == {"customer.first_name": 2}


def test_an_empty_variable_that_is_used_needs_an_approval(
    engine: Engine, changed: Callable[..., Config], environment: Environment
) -> None:
    campaigns = changed().campaigns_file.model_dump()["campaigns"]
    campaigns = [each | {"variables": {"code": " ", "unused": ""}} for each in campaigns]
    config = changed(campaigns_file={"campaigns": campaigns})
    plan_id = add_plan(engine, config, add_people(engine, numbered(2)))
    told = ("the variable code of winback is empty, and the mails of 2 recipients use it",)
    for _ in range(2):
        assert add_samples(engine, config, environment, plan_id).needs_approval == told


def test_what_was_found_before_stays(engine: Engine, config: Config, environment: Environment) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(1)))
    before = {"cost": "0", "slots": [], "needs_approval": ["it is much"]}
    change(engine, plans, plans.c.plan_id == plan_id, summary=before)
    plan = add_samples(engine, config, environment, plan_id)
    assert plan.summary is not None and before.items() <= plan.summary.items()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "<h1>Vous nous avez manqué</h1>",
            "{{ 1 / (customer.name | length - 12) }}",
            "atlas in fr: winback/fr.html cannot be rendered: division by zero",
        ),
        (
            "layouts/fr.html",
            "layouts/none.html",
            'atlas in fr: templates/winback/fr.html: there is no "layouts/none',
        ),
        (
            "{% if customer.first_name %}{{ customer.first_name }}, cela{% else %}Cela{% endif %} fait longtemps…",
            "",
            "atlas in fr: winback/fr.html: the subject is empty",
        ),
        ("fait longtemps…", "fait\nlongtemps…", "atlas in fr: winback/fr.html: Subject has a line break"),
    ],
)
def test_a_sample_that_cannot_be_made_needs_an_approval_and_the_others_are_there(
    engine: Engine, config: Config, spoilt: Environment, spoil: Spoil, old: str, new: str, told: str
) -> None:
    spoil("winback/fr.html", old, new)
    people = add_people(engine, numbered(2))
    plan_id = add_plan(engine, config, people)
    settle(engine, people[0], locale="fr")
    plan = add_samples(engine, config, spoilt, plan_id)
    (reason,) = plan.needs_approval
    assert reason.startswith(told)
    assert [row["language"] for row in sample_rows(plan)] == ["en"]


def test_a_plan_that_is_applied_keeps_what_was_approved(
    engine: Engine, config: Config, spoilt: Environment, spoil: Spoil
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(1)))
    before = add_samples(engine, config, spoilt, plan_id)
    change(engine, plans, plans.c.plan_id == plan_id, status="applied")
    spoil("winback/en.html", "has been a while", "is today")
    assert add_samples(engine, config, spoilt, plan_id).summary == before.summary
    with pytest.raises(UsageError, match="there is no plan 99"):
        add_samples(engine, config, spoilt, 99)


def test_the_mark_that_a_country_wants(engine: Engine, config: Config, environment: Environment) -> None:
    people = add_people(engine, numbered(6))
    for customer_id, country in zip(people, ("CN", "KR", "CN", "FR", "SG", None), strict=True):
        change(engine, customers, customers.c.customer_id == customer_id, country=country)
    plan = add_samples(engine, config, environment, add_plan(engine, config, people))
    assert [(row["law"], row["recipients"], row["subject"]) for row in sample_rows(plan)] == [
        ("", 3, "Ada, it has been a while"),
        ("CN", 2, "广告 Ada, it has been a while"),
        ("KR", 1, "(광고) Ada, it has been a while"),
    ]


@pytest.mark.parametrize(
    ("subject", "country", "purpose", "marked"),
    [
        ("Sale", "CN", "marketing", "广告 Sale"),
        ("Sale", "KR", "marketing", "(광고) Sale"),
        ("Sale", "KR", "transactional", "Sale"),
        ("Sale", "SG", "marketing", "Sale"),
        ("Sale", None, "marketing", "Sale"),
        ("", "CN", "marketing", ""),
        ("广告 Sale", "CN", "marketing", "广告 Sale"),
        ("广告新品", "CN", "marketing", "广告新品"),
        ("AD: Sale", "CN", "marketing", "AD: Sale"),
        ("AD", "CN", "marketing", "AD"),
        ("ADIDAS on sale", "CN", "marketing", "广告 ADIDAS on sale"),
        ("Sale (광고)", "KR", "marketing", "(광고) Sale (광고)"),
        ("广告 Sale", "KR", "marketing", "(광고) 广告 Sale"),
    ],
)
def test_marked_subjects(subject: str, country: str | None, purpose: str, marked: str) -> None:
    assert marked_subject(subject, country, purpose) == marked
    assert marked_subject(marked, country, purpose) == marked, "never twice"


def test_the_mail_has_the_mark_of_its_sample(engine: Engine, config: Config, environment: Environment) -> None:
    people = add_people(engine, ["ada@example.net"])
    change(engine, customers, customers.c.customer_id == people[0], country="KR")
    plan_id = add_plan(engine, config, people)
    (sample,) = sample_rows(add_samples(engine, config, environment, plan_id))
    prepare_links(engine, config, environment, plan_id)
    recipient = Recipient(
        1, plan_id, "winback", people[0], "email", "marketing", "atlas", "winback", "en", "ada@example.net",
        STAND_IN, country="KR",
    )  # fmt: skip
    mail = Composer(engine, config, environment, plan_id).compose(recipient)
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert message["Subject"] == sample["subject"] == "(광고) Ada, it has been a while"


def test_links_of_those_who_wait_for_the_end_of_their_quiet_hours_have_numbers(
    engine: Engine, config: Config, environment: Environment
) -> None:
    people = add_people(engine, numbered(2))
    plan_id = add_plan(engine, config, people)
    settle(engine, people[1], shop="harbour", verdict="quiet_hours")
    assert "https://harbour.example.com/new" in prepare_links(engine, config, environment, plan_id)


Person = tuple[str, str, str | None, str | None, str]
PERSON = st.tuples(
    st.sampled_from(["en", "fr"]),
    st.sampled_from(["atlas", "harbour"]),
    st.sampled_from(["CN", "KR", "DE", None]),
    st.sampled_from(["Ada", "", " ", None]),
    st.sampled_from(["selected", "quiet_hours", "capped"]),
)


@given(st.lists(PERSON, min_size=1, max_size=12))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counted_one_by_one(
    engine: Engine,
    config: Config,
    environment: Environment,
    drawn: list[Person],
) -> None:
    clear(engine)
    people = add_people(engine, numbered(len(drawn)))
    plan_id = add_plan(engine, config, people)
    expected, nameless = Counter[tuple[str, str, str]](), 0
    for customer_id, (locale, shop, country, name, verdict) in zip(people, drawn, strict=True):
        change(engine, customers, customers.c.customer_id == customer_id, country=country, name=name)
        settle(engine, customer_id, locale=locale, shop=shop, verdict=verdict)
        if verdict != "capped":
            expected[locale, shop, country if country in ("CN", "KR") else ""] += 1
            nameless += not (name or "").strip()
    plan = add_samples(engine, config, environment, plan_id)
    rows = sample_rows(plan)
    assert {(row["language"], row["shop"], row["law"]): row["recipients"] for row in rows} == expected
    assert plan.summary is not None
    assert plan.summary["empty_fields"] == ({"customer.first_name": nameless} if nameless else {})


def test_the_hash_is_of_the_templates_that_are_sent_and_of_no_others(
    config: Config, templates: Path, spoil: Spoil
) -> None:
    campaign = config.campaign("winback")
    first = content_hash(templates, campaign)
    assert first == content_hash(ROOT / "templates", campaign) and len(first) == 64
    spoil("vip/en.html", "{% extends", " {% extends")
    spoil("pages/layout.html", "<body>", "<body >")
    (templates / "winback" / "note.txt").write_text("no template")
    assert content_hash(templates, campaign) == first
    seen = {first}
    for name in ("winback/en.html", "winback/fr.html", "layouts/en.html", "layouts/fr.html", "layouts/mail.html"):
        path = templates / name
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(content_hash(templates, campaign))
    assert len(seen) == 6
    assert content_hash(templates, campaign.model_copy(update={"locales": ("en",)})) not in seen


def test_the_hash_of_templates_that_are_broken(config: Config, templates: Path) -> None:
    campaign, french = config.campaign("winback"), templates / "winback" / "fr.html"
    seen = {content_hash(templates, campaign)}
    for content in (b"", b"{% if", "café".encode("latin-1"), b"{% include locale ~ '.html' %}"):
        french.write_bytes(content)
        seen.add(content_hash(templates, campaign))
    french.unlink()
    seen.add(content_hash(templates, campaign))
    assert len(seen) == 6
    with pytest.raises(ConfigError, match="the folder of templates does not exist"):
        content_hash(templates / "none", campaign)


def test_a_name_worked_out_while_rendering_may_be_any_file(config: Config, templates: Path, spoil: Spoil) -> None:
    campaign = config.campaign("winback")
    spoil("winback/fr.html", "{% extends", "{% import locale ~ '.html' as words %}{% extends")
    first = content_hash(templates, campaign)
    spoil("vip/en.html", "{% extends", " {% extends")
    assert content_hash(templates, campaign) != first


def test_the_hash_now_is_of_the_campaign_as_planned(
    engine: Engine, config: Config, environment: Environment
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(1)), campaign="vip_thanks")
    now = content_hash_now(engine, environment.templates_dir, plan_id)
    assert now == content_hash(environment.templates_dir, config.campaign("vip_thanks"))
