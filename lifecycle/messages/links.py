"""Links of a plan: numbered once, before anything is sent, so that a click is a message and a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, Engine, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import links, plans, verdicts
from lifecycle.errors import ConfigError, PlanError
from lifecycle.messages.anchors import Link, find_links
from lifecycle.messages.notes import find_note_links, load_note
from lifecycle.messages.templates import load_templates
from lifecycle.messages.variables import variables
from lifecycle.planning.records import TO_SEND
from lifecycle.settings import Config, Environment
from lifecycle.settings.models import Campaign

_MAX_LINK_ID = 65_535  # two bytes in a token
UNSUBSCRIBE = "https://unsubscribe.invalid/"
"""In mails that nobody gets."""


def prepare_links(engine: Engine, config: Config, environment: Environment, plan_id: int) -> Mapping[str, int]:
    """Number the links of every language and shop that the plan sends to. Returns number by address.

    Numbers given before stay; run again, only new addresses are added.
    """
    with writing(engine) as connection:
        campaign = plan_campaign(connection, plan_id)
        numbers = _read(connection, plan_id)
        rows = []
        for link in _links(connection, config, environment, plan_id, campaign):
            if link.url not in numbers:
                numbers[link.url] = len(numbers) + 1
                rows.append(
                    {"plan_id": plan_id, "link_id": numbers[link.url], "url": link.url, "label": link.label}
                )
        if len(numbers) > _MAX_LINK_ID:
            raise ConfigError(f"{campaign.name}: more than {_MAX_LINK_ID:,} different links; use fewer")
        if rows:
            connection.execute(links.insert(), rows)
    return numbers


def read_links(engine: Engine, plan_id: int) -> Mapping[str, int]:
    """Number by address, as `prepare_links` left them."""
    with reading(engine) as connection:
        return _read(connection, plan_id)


def plan_campaign(connection: Connection, plan_id: int) -> Campaign:
    """The campaign as it was when planned. Raises PlanError for a plan that does not exist."""
    definition = connection.execute(select(plans.c.definition).where(plans.c.plan_id == plan_id)).scalar()
    if definition is None:
        raise PlanError(f"there is no plan {plan_id}; make one with: tern plan CAMPAIGN")
    return Campaign.model_validate(definition)


def _read(connection: Connection, plan_id: int) -> dict[str, int]:
    query = select(links.c.url, links.c.link_id).where(links.c.plan_id == plan_id)
    return {url: link_id for url, link_id in connection.execute(query)}


def _links(
    connection: Connection, config: Config, environment: Environment, plan_id: int, campaign: Campaign
) -> Iterator[Link]:
    templates = load_templates(environment.templates_dir)
    variants = (
        select(verdicts.c.locale, verdicts.c.shop)
        .where(verdicts.c.plan_id == plan_id, verdicts.c.verdict.in_(TO_SEND))
        .distinct()
        .order_by(verdicts.c.locale, verdicts.c.shop)
    )
    for locale, shop in connection.execute(variants):
        values = variables(campaign, config.shop(shop), locale=locale, name=None, unsubscribe_url=UNSUBSCRIBE)
        if config.channel(campaign.channel).kind == "email":
            page = templates.mail(campaign.template, locale).render(values, pixel_url="").html
            yield from find_links(page, UNSUBSCRIBE)
        else:
            note = load_note(environment.templates_dir, campaign.template, locale)
            yield from find_note_links(note.render(values))
