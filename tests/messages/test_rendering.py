"""A template in one language becomes a page and a text that read well."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lifecycle.errors import ConfigError, ContentError
from lifecycle.messages.records import Rendered
from lifecycle.messages.templates import check_templates, load_templates
from lifecycle.messages.variables import first_name, variables
from lifecycle.settings import ROOT, Config

ALL = [(name, locale) for name in ("winback", "vip") for locale in ("en", "fr")]
CAMPAIGN = {"winback": "winback", "vip": "vip_thanks"}


def render(
    config: Config, template: str, locale: str, name: str | None, folder: Path = ROOT / "templates"
) -> Rendered:
    campaign = config.campaign(CAMPAIGN[template])
    values = variables(
        campaign, config.shop("atlas"), locale=locale, name=name, unsubscribe_url="https://t.example/u/x"
    )
    return load_templates(folder).mail(template, locale).render(values, pixel_url="https://t.example/o/x.gif")


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize(("template", "locale"), ALL)
def test_reads_well_with_and_without_a_name(config: Config, template: str, locale: str) -> None:
    named, nameless = (render(config, template, locale, name) for name in ("Zoé Müller", None))
    assert "Zoé" in named.subject and "Zoé" in named.text and "Zoé" in named.html
    for part in (nameless.subject, nameless.text):
        assert "None" not in part and " ," not in part and "  " not in part
        assert part[0].isupper()


@pytest.mark.parametrize(("template", "locale"), ALL)
def test_page_is_styled_accessible_and_dark_where_wanted(config: Config, template: str, locale: str) -> None:
    page = render(config, template, locale, "Zoé").html
    tags = Tags(page).found
    assert ("html", locale) in [(tag, given.get("lang")) for tag, given in tags]
    assert "prefers-color-scheme: dark" in page and "max-width: 620px" in page and "!important" in page
    assert all("style" in given for tag, given in tags if tag in ("p", "a", "h1", "td", "table"))
    assert all(given.get("role") == "presentation" for tag, given in tags if tag == "table")
    assert all("alt" in given for tag, given in tags if tag == "img")
    assert len({given["href"] for tag, given in tags if tag == "a"}) >= 5
    body = page[page.index("<body") :]
    assert body.index('<img src="https://t.example/o/x.gif" alt=""') < body.index("<div")


@pytest.mark.parametrize(("template", "locale"), ALL)
def test_text_has_the_words_and_the_links_and_no_hidden_preheader(
    config: Config, template: str, locale: str
) -> None:
    rendered = render(config, template, locale, "Zoé")
    hidden = rendered.html.split("mso-hide:all", 1)[1].split(">", 1)[1].split("<", 1)[0]
    assert len(hidden) > 20
    assert hidden not in rendered.text
    assert config.shop("atlas").sender.postal_address in rendered.text
    assert "<\ue002https://t.example/u/x\ue003>" in rendered.text
    assert "\n\n\n" not in rendered.text and "{" not in rendered.text
    assert not any(line != line.strip() for line in rendered.text.splitlines())


def test_loops_and_conditions_come_out_in_the_text_in_their_order(
    config: Config, templates: Path, spoil: Callable[[str, str, str], None]
) -> None:
    spoil(
        "winback/en.html",
        "<h1>We have missed you</h1>",
        "<table><tbody>{% for number in range(2) %}\n<tr><td>Thing {{ number }}</td><td>{{ number + 5 }} EUR</td>"
        "</tr>\n{% endfor %}</tbody></table>{% if customer.name %}<p>yes</p>{% else %}<p>no</p>{% endif %}",
    )
    rendered = render(config, "winback", "en", "Ada", templates)
    assert "Thing 0 5 EUR\nThing 1 6 EUR" in rendered.text
    assert "yes" in rendered.text and "\nno\n" not in rendered.text
    assert rendered.html.count("<td") - rendered.html.count("Thing") * 2 == render(
        config, "winback", "en", "Ada"
    ).html.count("<td")


def test_block_of_the_layout_can_be_added_to(
    config: Config, templates: Path, spoil: Callable[[str, str, str], None]
) -> None:
    spoil(
        "winback/en.html",
        "{% block body %}",
        "{% block footer %}<p>PS</p>{{ super() }}{% endblock %}{% block body %}",
    )
    assert check_templates(config, templates) == []
    assert "PS\n\nYou get this mail because" in render(config, "winback", "en", "Ada", templates).text


def test_customer_data_cannot_become_markup_and_is_not_escaped_in_text(config: Config) -> None:
    rendered = render(config, "winback", "en", "<b>&amp;</b> Doe")
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in rendered.html
    assert "<b>&amp;</b>" in rendered.text


def test_customer_data_cannot_become_a_template(config: Config) -> None:
    assert "{{7*7}}" in render(config, "winback", "en", "{{7*7}} Doe").text


def test_failing_expression_is_an_error_of_content(
    config: Config, templates: Path, spoil: Callable[[str, str, str], None]
) -> None:
    spoil("winback/en.html", "<h1>", "{{ 10 // customer.name|length }}<h1>")
    with pytest.raises(ContentError, match=r"^winback/en.html cannot be rendered: "):
        render(config, "winback", "en", None, templates)


def test_template_that_is_not_there(config: Config) -> None:
    with pytest.raises(ConfigError, match='there is no "winback/de'):
        render(config, "winback", "de", None)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder of templates does not exist"):
        load_templates(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada Lovelace", "Ada"),
        ("Lovelace, Ada", "Ada"),
        ("  Ada  ", "Ada"),
        ("王小明", "王小明"),
        ("Doe,", "Doe"),
        ("", ""),
        (None, ""),
    ],
)
def test_first_name(name: str | None, greeting: str) -> None:
    assert first_name(name) == greeting
