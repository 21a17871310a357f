"""Links are numbered once per plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import links
from lifecycle.errors import ContentError, PlanError
from lifecycle.messages.compose import Composer, Recipient
from lifecycle.messages.links import prepare_links, read_links
from lifecycle.settings import Config, Environment
from tests.ledger.people import NOW, add_people, add_plan


def stored(engine: Engine) -> list[tuple[int, str, str | None]]:
    with reading(engine) as connection:
        query = select(links.c.link_id, links.c.url, links.c.label).order_by(links.c.plan_id, links.c.link_id)
        return [tuple(row) for row in connection.execute(query)]  # type: ignore[misc]


def test_each_address_of_the_selected_languages_gets_one_number(
    engine: Engine, config: Config, environment: Environment
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, ["a@example.com"]), locale="fr")
    numbers = prepare_links(engine, config, environment, plan_id)
    assert numbers == read_links(engine, plan_id)
    assert stored(engine) == [
        (1, "https://atlas.example.com/", "Atlas"),
        (2, "https://atlas.example.com/new", "Découvrir les nouveautés"),
        (3, "https://atlas.example.com/bestsellers", "Les préférés de nos clients"),
        (4, "https://atlas.example.com/back-in-stock", "De retour en stock"),
        (5, "https://atlas.example.com/account/orders", "Vos commandes précédentes"),
    ]


def test_again_changes_nothing_and_a_new_address_gets_a_new_number(
    engine: Engine,
    config: Config,
    environment: Environment,
    templates: Path,
    spoil: Callable[[str, str, str], None],
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, ["a@example.com"]))
    before = prepare_links(engine, config, environment, plan_id)
    assert prepare_links(engine, config, environment, plan_id) == before
    spoil("winback/en.html", "{{ shop.site }}/new", "{{ shop.site }}/newer?a=1&amp;b=2")
    moved = dataclasses.replace(environment, templates_dir=templates)
    after = prepare_links(engine, config, moved, plan_id)
    assert after == {**before, "https://atlas.example.com/newer?a=1&b=2": 6}


def test_two_shops_have_links_of_their_own(engine: Engine, config: Config, environment: Environment) -> None:
    plan_id = add_plan(engine, config, add_people(engine, ["a@example.com"]), shop="harbour")
    assert all(
        url.startswith("https://harbour.example.com/")
        for url in prepare_links(engine, config, environment, plan_id)
    )


def test_mail_with_a_link_that_the_plan_does_not_know_is_not_made(
    engine: Engine, config: Config, environment: Environment
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, ["a@example.com"]))
    composer = Composer(engine, config, environment, plan_id, clock=lambda: NOW)
    recipient = Recipient(
        1, plan_id, "winback", 1, "email", "marketing", "atlas", "winback", "en", "a@example.com", None
    )
    with pytest.raises(ContentError, match="not known to its plan"):
        composer.compose(recipient)


def test_plan_that_is_not_there(engine: Engine, config: Config, environment: Environment) -> None:
    with pytest.raises(PlanError, match="there is no plan 7"):
        prepare_links(engine, config, environment, 7)
