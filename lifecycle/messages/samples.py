"""What a plan would send, to be looked at before: one mail for each language and shop, to somebody made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, case, func, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, plans, verdicts
from lifecycle.errors import ConfigError, ContentError
from lifecycle.messages.anchors import URL_IN_TEXT
from lifecycle.messages.headers import marked_subject, text_header
from lifecycle.messages.links import UNSUBSCRIBE, plan_campaign
from lifecycle.messages.notes import load_note
from lifecycle.messages.templates import Templates, load_templates
from lifecycle.messages.variables import variables
from lifecycle.planning.plan import load_plan
from lifecycle.planning.records import TO_SEND, Plan
from lifecycle.settings import Config, Environment
from lifecycle.settings.models import Campaign
from lifecycle.settings.policies import subject_mark

STAND_IN = "Ada Lovelace"
_NO_PIXEL = "data:,"
_VARIABLES = "campaign.variables."


@dataclass(frozen=True)
class Sample:
    """A mail to `STAND_IN`. `recipients`: how many of the plan get one like it. `country`: whose law wants a mark
    in the subject; None: of all the others. Links lead where the template says: none is tracked or anybody's."""

    locale: str
    shop: str
    country: str | None
    recipients: int
    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class _Group:
    """Recipients whose mails differ in nothing but the person. `nameless`: how many have no name."""

    locale: str
    shop: str
    country: str | None
    recipients: int
    nameless: int


def content_hash(templates_dir: Path, campaign: Campaign) -> str:
    """SHA-256, hex, over names and bytes of the campaign's template in every language, as mail and as note, and of
    all they build on.

    A file that is missing, or is no template, counts as such: `add_samples` says what is wrong with it. Raises
    ConfigError where there is no such folder.
    """
    templates, digest = load_templates(templates_dir), sha256()
    mails = templates.files(*(f"{campaign.template}/{locale}.html" for locale in campaign.locales))
    notes = (f"{campaign.template}/{locale}.note.yaml" for locale in campaign.locales)
    for name in sorted((*mails, *(name for name in notes if (templates.folder / name).is_file()))):
        path = templates.folder / name
        content = path.read_bytes() if path.is_file() else b""
        size = len(content) if path.is_file() else "missing"
        digest.update(f"{name}|{size}\n".encode() + content)
    return digest.hexdigest()


def approved_locales(config: Config, templates_dir: Path, campaign: Campaign) -> frozenset[str] | None:
    """Languages in which the campaign's message is one that the messenger has approved; None for e-mail, where
    nobody approves. Raises ConfigError where a note is missing or broken."""
    if config.channel(campaign.channel).kind == "email":
        return None
    notes = {locale: load_note(templates_dir, campaign.template, locale) for locale in campaign.locales}
    return frozenset(locale for locale, note in notes.items() if note.sources.get("template"))


def content_hash_now(engine: Engine, templates_dir: Path, plan_id: int) -> str:
    """`content_hash` of the templates as they are now, of the campaign as it was planned. Raises PlanError where
    there is no such plan."""
    with reading(engine) as connection:
        campaign = plan_campaign(connection, plan_id)
    return content_hash(templates_dir, campaign)


def add_samples(engine: Engine, config: Config, environment: Environment, plan_id: int) -> Plan:
    """Note in the summary of a plan that is not applied what it would send, and return the plan as it stands then.

    `samples`: one for each language and shop, as in `Sample`. `empty_fields`: by merge field that the templates
    use, how many recipients have nothing there. What could not be made, or would be without one of the campaign's
    own variables, needs an approval. Raises UsageError where there is no such plan.
    """
    plan = load_plan(engine, plan_id)
    if plan.already_applied:
        return plan
    with reading(engine) as connection:
        campaign = plan_campaign(connection, plan_id)
        groups = list(_groups(connection, plan_id, campaign.purpose))
    templates, problems = load_templates(environment.templates_dir), dict[str, None]()
    samples = list(_samples(config, templates, campaign, groups, problems))
    is_mail = config.channel(campaign.channel).kind == "email"
    empty = _empty_fields(templates, campaign, groups) if is_mail else Counter[str]()
    problems |= dict.fromkeys(_without_variables(campaign, empty))
    with writing(engine) as connection:
        draft = (plans.c.plan_id == plan_id, plans.c.status == "draft")
        found = connection.execute(select(plans.c.summary).where(*draft).with_for_update()).one_or_none()
        if found is not None:
            summary = dict(found.summary or {})
            summary["samples"] = [asdict(sample) for sample in samples]
            summary["empty_fields"] = dict(empty)
            summary["needs_approval"] = list(dict.fromkeys([*summary.get("needs_approval", ()), *problems]))
            connection.execute(update(plans).where(*draft).values(summary=summary))
    return load_plan(engine, plan_id)


def _groups(connection: Connection, plan_id: int, purpose: str) -> Iterator[_Group]:
    """Those to be sent to, by language, shop, and country where the law of that wants a mark."""
    nameless = case((func.trim(func.coalesce(customers.c.name, "")) == "", 1), else_=0)
    by = (verdicts.c.locale, verdicts.c.shop, customers.c.country)
    query = (
        select(*by, func.count().label("recipients"), func.sum(nameless).label("nameless"))
        .join_from(verdicts, customers, customers.c.customer_id == verdicts.c.customer_id)
        .where(verdicts.c.plan_id == plan_id, verdicts.c.verdict.in_(TO_SEND))
        .group_by(*by)
    )
    recipients, without_name = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for row in connection.execute(query):
        key = row.locale, row.shop, row.country if subject_mark(row.country, purpose) else ""
        recipients[key] += row.recipients
        without_name[key] += int(row.nameless)
    for key in sorted(recipients):
        locale, shop, country = key
        yield _Group(locale, shop, country or None, recipients[key], without_name[key])


def _samples(
    config: Config,
    templates: Templates,
    campaign: Campaign,
    groups: Iterable[_Group],
    problems: dict[str, None],
) -> Iterator[Sample]:
    for group in groups:
        try:
            yield _sample(config, templates, campaign, group)
        except (ConfigError, ContentError) as error:
            problems[f"{group.shop} in {group.locale}: {error}"] = None


def _sample(config: Config, templates: Templates, campaign: Campaign, group: _Group) -> Sample:
    values = variables(
        campaign, config.shop(group.shop), locale=group.locale, name=STAND_IN, unsubscribe_url=UNSUBSCRIBE
    )
    if config.channel(campaign.channel).kind != "email":
        return _note_sample(templates, campaign, group, values)
    mail = templates.mail(campaign.template, group.locale)
    rendered = mail.render(values, pixel_url=_NO_PIXEL)
    if not rendered.subject:
        raise ContentError(f"{mail.name}: the subject is empty")
    subject = marked_subject(rendered.subject, group.country, campaign.purpose)
    try:
        text_header("Subject", subject)
    except ContentError as error:
        raise ContentError(f"{mail.name}: {error}") from None
    return Sample(
        locale=group.locale,
        shop=group.shop,
        country=group.country,
        recipients=group.recipients,
        subject=subject,
        text=URL_IN_TEXT.sub(r"\1", rendered.text),
        html=rendered.html,
    )


def _note_sample(templates: Templates, campaign: Campaign, group: _Group, values: Mapping[str, Any]) -> Sample:
    """Of a messenger's or platform's message: its title, or the name that the platform knows it by."""
    note = load_note(templates.folder, campaign.template, group.locale).render(values)
    return Sample(
        locale=group.locale,
        shop=group.shop,
        country=group.country,
        recipients=group.recipients,
        subject=note.title or note.template,
        text="\n".join((note.text, *note.parameters)).strip(),
        html="",
    )


def _empty_fields(templates: Templates, campaign: Campaign, groups: Sequence[_Group]) -> Counter[str]:
    """Recipients by merge field that their template uses and that is empty for them."""
    used = {locale: templates.fields(campaign.template, locale) for locale in {group.locale for group in groups}}
    blank = {_VARIABLES + name for name, value in campaign.variables.items() if not value.strip()}
    found = Counter[str]()
    for group in groups:
        found.update({field: group.recipients for field in sorted(used[group.locale] & blank)})
        names = used[group.locale] & {"customer.name", "customer.first_name"}
        found.update({field: group.nameless for field in sorted(names) if group.nameless})
    return found


def _without_variables(campaign: Campaign, empty: Counter[str]) -> Iterator[str]:
    for field, recipients in empty.items():
        if field.startswith(_VARIABLES):
            yield (
                f"the variable {field.removeprefix(_VARIABLES)} of {campaign.name} is empty, and the mails of "
                f"{recipients:,} recipients use it"
            )
