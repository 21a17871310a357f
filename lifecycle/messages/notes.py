"""Messages that are no mails: `templates/<template>/<locale>.note.yaml`, for messengers and platforms.

Each value is a template of its own: title, text, template (the name under which the platform has approved it),
language (the platform's code for it; left out, the locale), parameters (a list), extras (by the channel's names).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, Template, TemplateError

from lifecycle.errors import ConfigError, ContentError, suggest
from lifecycle.messages.anchors import Link
from lifecycle.messages.templates import (
    RENDER_ERRORS,
    SAMPLE_CUSTOMERS,
    sample_values,
    sandboxed,
    unknown_variables,
    words_of,
)
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, Shop

MAX_CHARACTERS: Mapping[str, int] = {
    "whatsapp": 4096,
    "messenger": 2000,
    "ebay_messages": 2000,
    "tiktok_engagement": 500,
}
"""Of the text, by kind of channel, as the platforms count: in characters (platform facts, 0, 3, 6, 7)."""

MAX_PARAMETER_CHARACTERS: Mapping[str, int] = {"whatsapp": 1024}
"""Of all parameters together: the body of a WhatsApp template may not be longer once they stand in it."""

EXTRAS: Mapping[str, re.Pattern[str]] = {
    "whatsapp": re.compile(r"header(_image|_video|_document)?|(button|reply)_\d"),
    "messenger": re.compile(r"tag|notification_messages_token"),
}
"""The extras that a channel knows, where the list is complete."""

_NO_TITLE = frozenset({"whatsapp", "messenger"})
_FIELDS = ("title", "text", "template", "language", "parameters", "extras")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_URL = re.compile(r"https?://[^\s<>\"'`\u3000-\u303f\uff00-\uffef]+")
_AFTER_URL = ".,;:!?…*"


@dataclass(frozen=True)
class RenderedNote:
    """Links are still as the template writes them. `unsubscribe_url`: the one that is never tracked."""

    title: str = ""
    text: str = ""
    template: str = ""
    language: str = ""
    parameters: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)
    unsubscribe_url: str = ""


@dataclass(frozen=True)
class NoteTemplate:
    """One template in one language. `name`: for example `winback/fr.note.yaml`. `fields` and `sources`: by name of
    the field, `parameters[0]`, `extras.coupon_id`, compiled and as written."""

    name: str
    fields: Mapping[str, Template]
    sources: Mapping[str, str]
    environment: Environment

    def render(self, values: Mapping[str, Any]) -> RenderedNote:
        """Extras that come out empty are left out. Raises ContentError where the message cannot be made, or is
        none, or a field has a character that a messenger might take for something else."""
        said = {name: self._rendered(name, values) for name in self.fields}
        note = RenderedNote(
            title=said.get("title", ""),
            text=re.sub(r"\n{3,}", "\n\n", said.get("text", "")),
            template=said.get("template", ""),
            language=said.get("language", ""),
            parameters=tuple(value for name, value in said.items() if name.startswith("parameters[")),
            extras={
                name.removeprefix("extras."): value
                for name, value in said.items()
                if name.startswith("extras.") and value
            },
            unsubscribe_url=str(values.get("unsubscribe_url", "")),
        )
        self._must_be_sound(said, note)
        return note

    def _rendered(self, name: str, values: Mapping[str, Any]) -> str:
        try:
            return self.fields[name].render(values).replace("\r\n", "\n").strip()
        except RENDER_ERRORS as error:
            raise ContentError(f"{self.name}: {name} cannot be rendered: {words_of(error)}") from None

    def _must_be_sound(self, said: Mapping[str, str], note: RenderedNote) -> None:
        for name, value in said.items():
            if _CONTROL.search(value.replace("\n", "") if name == "text" else value):
                kind = "a control character" if name == "text" else "a line break or control character"
                raise ContentError(f"{self.name}: {name} has {kind}")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ContentError(f"{self.name}: {name} has a character that cannot be encoded") from None
        if not note.text and not note.template:
            raise ContentError(f"{self.name}: the message is empty; fill text, or name an approved template")
        for name, value in said.items():
            if name.startswith("parameters[") and not value:
                raise ContentError(f"{self.name}: {name} is empty, which no approved template may be given")


def load_note(templates_dir: Path, template: str, locale: str) -> NoteTemplate:
    """Compiled; whoever asks keeps it. Raises ConfigError where the file is missing or is not as it must be."""
    name = f"{template}/{locale}.note.yaml"
    where = f"{templates_dir.name}/{name}"
    sources = dict(_sources(where, _read(templates_dir / name, where, template, locale)))
    if "language" not in sources:
        sources["language"] = locale
    environment = sandboxed(templates_dir, autoescape=False)
    fields = {}
    for each, source in sources.items():
        try:
            fields[each] = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"{where}: {each}: {words_of(error)}") from None
    return NoteTemplate(name, fields, sources, environment)


def find_note_links(note: RenderedNote) -> list[Link]:
    """Every link in text and parameters that is to be tracked, in order, each address once; its label is what
    stands between scheme and query."""
    found: dict[str, Link] = {}
    for value in (note.text, *note.parameters):
        for match in _URL.finditer(value):
            url = _url(match.group())
            if url != note.unsubscribe_url:
                found.setdefault(url, Link(url, re.split(r"[?#]", url.partition("://")[2])[0][:80]))
    return list(found.values())


def track_note(note: RenderedNote, links: Mapping[str, int], address: Callable[[int], str]) -> RenderedNote:
    """With tracked links. `links`: number by address; `address`: what to write for a number.

    Raises ContentError for a link that has no number.
    """

    def tracked(match: re.Match[str]) -> str:
        url = _url(match.group())
        if url == note.unsubscribe_url:
            return match.group()
        if url not in links:
            raise ContentError("a link in the message is not known to its plan; the template has changed since")
        return address(links[url]) + match.group()[len(url) :]

    parameters = tuple(_URL.sub(tracked, value) for value in note.parameters)
    return replace(note, text=_URL.sub(tracked, note.text), parameters=parameters)


def broken_note_rules(note: RenderedNote, kind: str) -> Iterator[str]:
    """What a kind of channel would not take, one sentence each, without the file's name."""
    if kind in MAX_CHARACTERS and len(note.text) > (most := MAX_CHARACTERS[kind]):
        yield f"text has {len(note.text):,} characters, and {kind} takes {most:,}; shorten it"
    together = sum(map(len, note.parameters))
    if kind in MAX_PARAMETER_CHARACTERS and together > (most := MAX_PARAMETER_CHARACTERS[kind]):
        yield f"parameters have {together:,} characters together, and {kind} takes {most:,}; shorten them"
    if note.title and kind in _NO_TITLE:
        yield f"title is never seen: messages on {kind} have none; leave it out"
    if note.parameters and not note.template and kind == "whatsapp":
        yield "parameters without a template are never seen; name the approved template"
    known = EXTRAS.get(kind)
    for name in note.extras:
        if known and not known.fullmatch(name):
            yield f"extras.{name} is nothing that {kind} knows; leave it out"


def check_note(templates_dir: Path, campaign: Campaign, shop: Shop, locale: str, kind: str) -> list[str]:
    """One campaign, language and shop rendered with sample data for a kind of channel (`Way.kind`); one sentence
    per problem, none twice."""
    try:
        return list(dict.fromkeys(_problems(templates_dir, campaign, shop, locale, kind)))
    except ConfigError as error:
        return [str(error)]
    except ContentError as error:
        return [f"{templates_dir.name}/{error}"]


def check_notes(config: Config, templates_dir: Path) -> list[str]:
    """`check_note` of every campaign, language and shop, on each of its channels that sends no mails."""
    problems: dict[str, None] = {}
    for campaign in config.campaigns_file.campaigns:
        kinds = dict.fromkeys(config.channel(name).kind for name in (campaign.channel, *campaign.fallback))
        shops = [config.shop(name) for name in campaign.shops or config.shops]
        for kind, locale, shop in product(kinds, campaign.locales, shops):
            if kind != "email":
                problems.update(dict.fromkeys(check_note(templates_dir, campaign, shop, locale, kind)))
    return list(problems)


def _problems(templates_dir: Path, campaign: Campaign, shop: Shop, locale: str, kind: str) -> Iterator[str]:
    template = load_note(templates_dir, campaign.template, locale)
    where = f"{templates_dir.name}/{template.name}"
    samples = [sample_values(campaign, shop, locale, customer) for customer in SAMPLE_CUSTOMERS]
    if wrong := list(_wrong_names(template, samples[0])):
        yield from (f"{where}: {problem}" for problem in wrong)
        return
    rendered = [template.render(sample) for sample in samples]
    for problem in chain.from_iterable(broken_note_rules(note, kind) for note in rendered):
        yield f"{where}: {problem}"
    if kind == "whatsapp" and campaign.purpose == "marketing" and not rendered[0].template:
        yield f"{where}: whatsapp takes marketing only as an approved template; name it in template"
    links = [{link.url for link in find_note_links(note)} for note in rendered]
    for url in sorted(links[0]):
        if not url.startswith("https://") and not (shop.site and url.startswith(shop.site)):
            site = shop.site or "it has none: set site in config/shops.yaml"
            yield f'{where}: the link "{url}" is neither https nor on the site of shop {shop.name} ({site})'
    for url in sorted(set[str]().union(*links) - links[0].intersection(*links)):
        yield (
            f"{where}: not everybody gets the link {url}; clicks are counted by link, so leave the customer out "
            "of its address"
        )


def _wrong_names(template: NoteTemplate, known: Mapping[str, Any]) -> Iterator[str]:
    for name, source in template.sources.items():
        tree = template.environment.parse(source)
        for _, problem in unknown_variables(tree, known, set(template.environment.globals)):
            yield f"{name}: {problem}"


def _read(path: Path, where: str, template: str, locale: str) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{where} is missing; add it, or take {locale} out of the locales of what is sent with {template}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: the file is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise ConfigError(f"{where}: {line}{problem}; a value that begins with {{{{ needs quotes") from None
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where}: write fields and values, for example text: Hello; fields: {', '.join(_FIELDS)}"
        )
    return content


def _sources(where: str, content: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Every value by the name of its field: `text`, `parameters[0]`, `extras.coupon_id`. Raises ConfigError."""
    for name, value in content.items():
        if name not in _FIELDS:
            raise ConfigError(f'{where}: there is no field "{name}"{suggest(str(name), _FIELDS)}')
        if name == "parameters":
            if not isinstance(value, list):
                raise ConfigError(f"{where}: parameters must be a list, each on a line of its own after a dash")
            yield from (
                (f"parameters[{place}]", _source(where, f"parameters[{place}]", each))
                for place, each in enumerate(value)
            )
        elif name == "extras":
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: extras must be names with values, for example coupon_id: C10")
            yield from ((f"extras.{each}", _source(where, f"extras.{each}", value[each])) for each in value)
        else:
            yield name, _source(where, name, value)


def _source(where: str, name: str, value: object) -> str:
    """Numbers are as good as text; what YAML takes for a date, a list or yes and no is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"{where}: {name} must be text; put it in quotes")
    return str(value)


def _url(match: str) -> str:
    """The address without the punctuation of the sentence that it stands in."""
    while match:
        opening = {")": "(", "]": "["}.get(match[-1])
        if match[-1] in _AFTER_URL or (opening and match.count(match[-1]) > match.count(opening)):
            match = match[:-1]
        else:
            break
    return match
