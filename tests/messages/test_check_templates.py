"""What `tern check` says about templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.messages.templates import check_templates
from lifecycle.settings import ROOT, Config

Spoil = Callable[[str, str, str], None]
HELLO = "{{ customer.first_name }}{% endif %},</p>"


def test_the_projects_own_templates_are_sound(config: Config) -> None:
    assert list((ROOT / "templates").glob("*/*.html"))
    assert check_templates(config, ROOT / "templates") == []


def test_unknown_variable_is_named_with_file_line_and_the_nearest_name(
    config: Config, templates: Path, spoil: Spoil
) -> None:
    spoil("winback/fr.html", HELLO, "{{ customer.frist_name }}{% endif %},</p>")
    (problem,) = check_templates(config, templates)
    assert problem == (
        'templates/winback/fr.html: line 9: variable "customer.frist_name" does not exist; '
        'did you mean "first_name"?'
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("{{ custmer.name }}", 'variable "custmer" does not exist; did you mean "customer"?'),
        ("{{ campaign.variables.cod }}", 'variable "campaign.variables.cod" does not exist; did you mean "code"?'),
        ("{% if shop.nmae %}x{% endif %}", 'variable "shop.nmae" does not exist; did you mean "name"?'),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
        ("{{ shop.site", "expected token 'end of print statement'"),
        ("{{ shop.site|uper }}", "No filter named 'uper'."),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ customer.name.__class__.__mro__ }}", "access to attribute '__class__'"),
    ],
)
def test_mistakes_in_a_template_are_named_with_their_line(
    config: Config, templates: Path, spoil: Spoil, wrong: str, sentence: str
) -> None:
    spoil("winback/fr.html", "<h1>Vous nous avez manqué</h1>", wrong)
    problems = check_templates(config, templates)
    assert len(problems) == 1
    assert problems[0].startswith("templates/winback/fr.html: line ")
    assert sentence in problems[0]


def test_a_mistake_in_a_layout_is_found_once_and_in_the_layout(
    config: Config, templates: Path, spoil: Spoil
) -> None:
    spoil("layouts/mail.html", "{{ sender.postal_address }}</p>", "{{ sender.adress }}</p>")
    (problem,) = check_templates(config, templates)
    assert problem.startswith("templates/layouts/mail.html: line ")
    assert 'variable "sender.adress" does not exist; did you mean "address"?' in problem


def test_missing_language(config: Config, templates: Path) -> None:
    (templates / "vip" / "fr.html").unlink()
    assert check_templates(config, templates) == [
        "templates/vip/fr.html is missing; add it, or take fr out of the locales of vip_thanks in "
        "config/campaigns.yaml"
    ]


def test_missing_layout(config: Config, templates: Path, spoil: Spoil) -> None:
    spoil("vip/fr.html", "layouts/fr.html", "layouts/rf.html")
    (problem,) = check_templates(config, templates)
    assert problem == (
        'templates/vip/fr.html: there is no "layouts/rf.html" to build on; did you mean "layouts/fr.html"?'
    )


def test_block_that_no_layout_has(config: Config, templates: Path, spoil: Spoil) -> None:
    spoil("vip/en.html", "{% block preheader %}", "{% block prehaeder %}")
    (problem,) = check_templates(config, templates)
    assert 'templates/vip/en.html: line 5: no layout has a block "prehaeder"; did you mean "preheader"?' in problem


def test_file_that_is_not_utf_8(config: Config, templates: Path) -> None:
    (templates / "vip" / "en.html").write_bytes("{% block body %}café{% endblock %}".encode("latin-1"))
    (problem,) = check_templates(config, templates)
    assert problem == "templates/vip/en.html: line 1: the file is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("layouts/en.html", "{{ unsubscribe_url }}", "{{ shop.site }}/bye", "there is no unsubscribe link"),
        ("layouts/mail.html", "<p>{{ sender.postal_address }}</p>", "", "the postal address is missing"),
        ("winback/en.html", "{{ shop.site }}/new", "http://else.example/new", "is neither https nor on the site"),
        ("winback/en.html", "<h1>", '<img src="https://a.example/b.png"><h1>', "has no alt text"),
        ("winback/en.html", "<h1>", "<p>" + "many words " * 9_000 + "</p><h1>", "Gmail would cut it"),
        (
            "winback/en.html",
            "{{ shop.site }}/new",
            "{{ shop.site }}/new?for={{ customer.first_name }}",
            "not everybody gets the link https://atlas.example.com/new?for=",
        ),
        (
            "winback/en.html",
            "{% if customer.first_name %}{{ customer.first_name }}, it{% else %}It{% endif %} has been a while",
            "",
            "the subject is empty",
        ),
        ("winback/en.html", "has been a while", "has\nbeen a while", "the subject has a line break"),
    ],
)
def test_rules_of_content(
    config: Config, templates: Path, spoil: Spoil, file: str, old: str, new: str, sentence: str
) -> None:
    spoil(file, old, new)
    problems = check_templates(config, templates)
    assert problems
    assert any(problem.startswith("templates/") and sentence in problem for problem in problems), problems


def test_a_loop_in_a_table_survives_the_inlining(config: Config, templates: Path, spoil: Spoil) -> None:
    spoil(
        "winback/en.html",
        "<h1>We have missed you</h1>",
        "<table><tbody>{% for number in range(3) %}<tr><td>{{ number < 9 and 'row' }} {{ number }}</td></tr>"
        "{% endfor %}</tbody></table>",
    )
    assert check_templates(config, templates) == []
