"""Templates: found, compiled once per process, rendered per recipient, and checked before anybody gets them."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from css_inline import InlineError
from jinja2 import (
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    meta,
    nodes,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lifecycle.errors import ConfigError, ContentError, suggest
from lifecycle.messages.anchors import find_links
from lifecycle.messages.content import broken_rules
from lifecycle.messages.inlining import inline
from lifecycle.messages.records import Rendered
from lifecycle.messages.variables import variables
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, Shop

RENDER_ERRORS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What an expression in a template can raise for one recipient's data."""


@dataclass(frozen=True)
class MailTemplate:
    """One template in one language. `name`: for example `winback/fr.html`."""

    name: str
    subject: Template
    html: Template
    text: Template

    def render(self, values: Mapping[str, Any], *, pixel_url: str) -> Rendered:
        """Raises ContentError where an expression fails for these values."""
        try:
            return Rendered(
                subject=self.subject.render(values).strip(),
                html=self.html.render(values, pixel_url=pixel_url),
                text=re.sub(r"\n{3,}", "\n\n", self.text.render(values)),
            )
        except RENDER_ERRORS as error:
            raise ContentError(f"{self.name} cannot be rendered: {words_of(error)}") from None


class Templates:
    """All of `templates/`; each is compiled when first asked for and then kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = sandboxed(folder, autoescape=True)
        self._plain = sandboxed(folder, autoescape=False)
        self._compiled: dict[str, MailTemplate] = {}

    def mail(self, template: str, locale: str) -> MailTemplate:
        """Raises ConfigError where the file is missing or not a template."""
        name = f"{template}/{locale}.html"
        if name not in self._compiled:
            try:
                self._compiled[name] = self._compile(name)
            except (TemplateError, InlineError) as error:
                raise ConfigError(_sentence(self.folder, name, error)) from None
        return self._compiled[name]

    def source(self, name: str) -> str:
        """A file as written. Raises TemplateNotFound or, where it is not UTF-8, TemplateSyntaxError."""
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TemplateNotFound(name) from None
        except UnicodeDecodeError:
            raise TemplateSyntaxError("the file is not UTF-8; save it as UTF-8", 1, name) from None

    def files(self, *names: str) -> list[str]:
        """These files and what they build on, as far as they can be read; a name worked out while rendering stands
        for every file."""
        found = list(dict.fromkeys(names))
        for name in found:
            if (tree := self._parsed(name)) is None:
                continue
            referenced = list(meta.find_referenced_templates(tree))
            if None in referenced:
                referenced += [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.html")]
            found += [other for other in dict.fromkeys(referenced) if other and other not in found]
        return found

    def fields(self, template: str, locale: str) -> set[str]:
        """What a template and its layouts read, for example `customer.first_name`."""
        trees = (self._parsed(name) for name in self.files(f"{template}/{locale}.html"))
        return {_dotted(node) for tree in trees if tree for node in tree.find_all(nodes.Getattr)}

    def _parsed(self, name: str) -> nodes.Template | None:
        try:
            return self.pages.parse(self.source(name), name)
        except (TemplateError, OSError):
            return None

    def _compile(self, name: str) -> MailTemplate:
        sources = inline(name, self.source, self.pages)
        return MailTemplate(
            name,
            subject=self._plain.from_string(sources.subject),
            html=self.pages.from_string(sources.html),
            text=self._plain.from_string(sources.text),
        )


def load_templates(templates_dir: Path) -> Templates:
    """Raises ConfigError where there is no such folder."""
    if not templates_dir.is_dir():
        raise ConfigError(f"{templates_dir}: the folder of templates does not exist; set TERN_TEMPLATES")
    return Templates(templates_dir)


def check_templates(config: Config, templates_dir: Path) -> list[str]:
    """Every campaign by mail, language and shop, rendered with sample data; a sentence per problem, none twice."""
    templates = load_templates(templates_dir)
    problems: dict[str, None] = {}
    for campaign in config.campaigns_file.campaigns:
        if "email" not in {config.channel(name).kind for name in (campaign.channel, *campaign.fallback)}:
            continue
        for locale in campaign.locales:
            found = list(_problems(config, templates, campaign, locale))
            problems.update(dict.fromkeys(found))
    return list(problems)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which asks seven questions about every attribute; of our own variables two are enough."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is SimpleNamespace and not attribute.startswith("_") and attribute in obj.__dict__:
            return obj.__dict__[attribute]
        return super().getattr(obj, attribute)


def sandboxed(folder: Path, *, autoescape: bool) -> ImmutableSandboxedEnvironment:
    return _Sandbox(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=autoescape,
        keep_trailing_newline=True,
    )


def _problems(config: Config, templates: Templates, campaign: Campaign, locale: str) -> Iterator[str]:
    name = f"{campaign.template}/{locale}.html"
    if not (templates.folder / name).is_file():
        yield (
            f"{templates.folder.name}/{name} is missing; add it, or take {locale} out of the locales of "
            f"{campaign.name} in config/campaigns.yaml"
        )
        return
    try:
        for shop in (config.shop(shop) for shop in campaign.shops or config.shops):
            samples = [sample_values(campaign, shop, locale, customer) for customer in SAMPLE_CUSTOMERS]
            if wrong := list(_wrong_names(templates, name, samples[0])):
                yield from wrong
                return
            yield from _broken_rules(templates, campaign, shop, locale, samples)
    except ConfigError as error:
        yield str(error)
    except ContentError as error:
        yield f"{templates.folder.name}/{error}"
    except RENDER_ERRORS as error:
        yield _sentence(templates.folder, name, error)


SAMPLE_CUSTOMERS = ("", "Ada Lovelace-O'Brien", "王 <小> & Co")
_UNSUBSCRIBE = "https://tracking.example.com/u/sample"


def sample_values(campaign: Campaign, shop: Shop, locale: str, customer: str) -> Mapping[str, Any]:
    return variables(campaign, shop, locale=locale, name=customer, unsubscribe_url=_UNSUBSCRIBE)


def _broken_rules(
    templates: Templates, campaign: Campaign, shop: Shop, locale: str, samples: list[Mapping[str, Any]]
) -> Iterator[str]:
    mail = templates.mail(campaign.template, locale)
    for sample in samples:
        templates.pages.get_template(mail.name).render(sample)  # as written, so that an error knows its line
    rendered = [mail.render(sample, pixel_url="https://tracking.example.com/o/sample.gif") for sample in samples]
    for one in rendered:
        for problem in broken_rules(one, shop, unsubscribe_url=_UNSUBSCRIBE):
            yield f"{templates.folder.name}/{mail.name}: {problem}"
    links = [{link.url for link in find_links(one.html, _UNSUBSCRIBE)} for one in rendered]
    for url in sorted(set[str]().union(*links) - links[0].intersection(*links)):
        yield (
            f"{templates.folder.name}/{mail.name}: not everybody gets the link {url}; clicks are counted by "
            "link, so leave the customer out of its address"
        )


def _wrong_names(templates: Templates, name: str, known: Mapping[str, Any]) -> Iterator[str]:
    """Variables and blocks that do not exist, in the template and its layouts, each with its line."""
    parts = [(part, templates.pages.parse(templates.source(part), part)) for part in _lineage(templates, name)]
    for position, (part, tree) in enumerate(parts):
        where = f"{templates.folder.name}/{part}"
        for line, problem in unknown_variables(tree, known, set(templates.pages.globals)):
            yield f"{where}: line {line}: {problem}"
        if tree.find(nodes.Extends):
            blocks = {block.name for _, above in parts[position + 1 :] for block in above.find_all(nodes.Block)}
            for block in (node for node in tree.body if isinstance(node, nodes.Block)):
                if block.name not in blocks:
                    hint = suggest(block.name, blocks)
                    yield f'{where}: line {block.lineno}: no layout has a block "{block.name}"{hint}'


def _lineage(templates: Templates, name: str) -> list[str]:
    """The template and its layouts, outermost last. Raises TemplateNotFound for one that is not there."""
    found = [name]
    for part in found:
        templates.pages.compile(templates.source(part), part)  # unknown filters are found here, with their line
        parents = meta.find_referenced_templates(templates.pages.parse(templates.source(part), part))
        found += [parent for parent in parents if parent and parent not in found]
    return found


def unknown_variables(
    tree: nodes.Template, known: Mapping[str, Any], builtin: set[str]
) -> Iterator[tuple[int, str]]:
    outside = meta.find_undeclared_variables(tree) - builtin

    def value_of(node: nodes.Node) -> Any:
        if isinstance(node, nodes.Name) and node.name in outside:
            return known.get(node.name)
        if isinstance(node, nodes.Getattr):
            return getattr(value_of(node.node), node.attr, None)
        return None

    for node in tree.find_all((nodes.Name, nodes.Getattr)):
        if isinstance(node, nodes.Name) and node.name in outside - set(known):
            yield node.lineno, f'variable "{node.name}" does not exist{suggest(node.name, known)}'
        elif isinstance(node, nodes.Getattr) and isinstance(owner := value_of(node.node), SimpleNamespace):
            names = vars(owner)
            if node.attr not in names:
                yield node.lineno, f'variable "{_dotted(node)}" does not exist{suggest(node.attr, names)}'


def _dotted(node: nodes.Node) -> str:
    if isinstance(node, nodes.Getattr):
        return f"{_dotted(node.node)}.{node.attr}"
    return str(getattr(node, "name", "…"))


def _sentence(folder: Path, name: str, error: Exception) -> str:
    if isinstance(error, TemplateSyntaxError):
        return f"{folder.name}/{error.name or name}: line {error.lineno}: {words_of(error)}"
    if isinstance(error, TemplateNotFound):
        layouts = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("layouts/*.html"))]
        return f'{folder.name}/{name}: there is no "{error.name}" to build on{suggest(str(error.name), layouts)}'
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    if not frames:
        return f"{folder.name}/{name}: {words_of(error)}"
    where = f"{folder.name}/{Path(frames[-1].filename).relative_to(folder)}"
    return f"{where}: line {frames[-1].lineno}: {words_of(error)}"


def words_of(error: Exception) -> str:
    return str(getattr(error, "message", None) or error).strip().splitlines()[0]
