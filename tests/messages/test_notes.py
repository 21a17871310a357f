"""Messages that are no mails: loaded, rendered, tracked, and checked before anybody gets them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import ConfigError, ContentError
from lifecycle.messages.anchors import Link
from lifecycle.messages.notes import (
    RenderedNote,
    broken_note_rules,
    check_note,
    check_notes,
    find_note_links,
    load_note,
    track_note,
)
from lifecycle.messages.variables import variables
from lifecycle.settings import ROOT, Config
from lifecycle.settings.channels import WhatsAppChannel

Check = Callable[..., list[str]]
UNSUBSCRIBE = "https://t.example/u/x"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates" / "winback").mkdir(parents=True)
    return tmp_path / "templates"


@pytest.fixture
def render(config: Config, folder: Path) -> Callable[..., RenderedNote]:
    """`render(content, name)`: what the file makes of a person."""

    def rendered(content: str, name: str | None = "Zoé Müller") -> RenderedNote:
        (folder / "winback" / "en.note.yaml").write_text(content, encoding="utf-8", newline="")
        campaign, shop = config.campaign("winback"), config.shop("atlas")
        values = variables(campaign, shop, locale="en", name=name, unsubscribe_url=UNSUBSCRIBE)
        return load_note(folder, "winback", "en").render(values)

    return rendered


@pytest.fixture
def check(config: Config, folder: Path) -> Check:
    def problems(content: str, kind: str = "webhook", *, purpose: str = "marketing") -> list[str]:
        (folder / "winback" / "en.note.yaml").write_text(content, encoding="utf-8")
        campaign = config.campaign("winback").model_copy(update={"purpose": purpose})
        return check_note(folder, campaign, config.shop("atlas"), "en", kind)

    return problems


@pytest.mark.parametrize("locale", ["en", "fr"])
def test_the_projects_own_are_sound(config: Config, locale: str) -> None:
    for shop in config.shops.values():
        assert check_note(ROOT / "templates", config.campaign("winback"), shop, locale, "whatsapp") == []
    note = load_note(ROOT / "templates", "winback", locale)
    values = variables(
        config.campaign("winback"), config.shop("atlas"), locale=locale, name=None, unsubscribe_url=UNSUBSCRIBE
    )
    rendered = note.render(values)
    assert (rendered.template, rendered.language) == ("winback_offer", locale)
    written = (ROOT / "templates" / "winback" / f"{locale}.note.yaml").read_text(encoding="utf-8")
    assert len(rendered.parameters) == len(set(re.findall(r"\{\{(\d)\}\}", written)))


def test_every_field_is_a_template(render: Callable[..., RenderedNote]) -> None:
    rendered = render(
        "title: '{{ sender.name }}'\n"
        "text: |\n  Hello {{ customer.first_name }} <&>,\n\n\n\n  {{ shop.site }}/new\n"
        "template: '{{ campaign.name }}_1'\n"
        "language: '{{ locale }}_US'\n"
        "parameters: ['{{ customer.name }}', 10]\n"
        "extras: {coupon_id: 4711, empty: '', code: '{{ campaign.variables.code }}'}\n"
    )
    assert rendered.text.startswith("Hello Zoé <&>,\n\nhttp") and rendered.text.endswith("/new")
    assert (rendered.template, rendered.language) == ("winback_1", "en_US")
    assert rendered.parameters == ("Zoé Müller", "10")
    assert rendered.extras == {"coupon_id": "4711", "code": "BACK10"}
    assert rendered.title and render("text: x").language == "en"


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        ("title: Hi", "Ada", "the message is empty; fill text, or name an approved template"),
        ("text: '{{ customer.first_name }}'", None, "the message is empty"),
        ("text: '{{ customer.name }}'", "Ada\x07", "text has a control character"),
        ("text: '{{ customer.name }}'", "Ada\u2028Eve", "text has a control character"),
        ("text: '{{ customer.name }}'", "Ada\ud800", "text has a character that cannot be encoded"),
        ("title: '{{ customer.name }}'\ntext: x", "Ada\nX: y", "title has a line break or control character"),
        ("template: t\nparameters: ['{{ customer.name }}']", "A\rB", "parameters[0] has a line break"),
        ("template: t\nparameters: [a, '{{ customer.name }}']", " ", "parameters[1] is empty, which no approved"),
        ("text: x\nextras: {a: '{{ customer.name }}'}", "A\nB", "extras.a has a line break"),
        ("text: '{{ nobody.name }}'", "Ada", "text cannot be rendered: 'nobody' is undefined"),
        ("text: '{{ customer.age }}'", "Ada", "text cannot be rendered: 'types.SimpleNamespace object' has no"),
        ("text: '{{ customer.__class__ }}'", "Ada", "text cannot be rendered: access to attribute '__class__'"),
        ("text: '{{ 1 / 0 }}'", "Ada", "text cannot be rendered: division by zero"),
    ],
)
def test_what_cannot_be_a_message(
    render: Callable[..., RenderedNote], content: str, name: str | None, sentence: str
) -> None:
    with pytest.raises(ContentError) as caught:
        render(content, name)
    assert str(caught.value).startswith(f"winback/en.note.yaml: {sentence}")
    assert not name or name.strip() not in str(caught.value) or len(name.strip()) < 2


def test_line_breaks_of_any_system_are_line_breaks_in_text(render: Callable[..., RenderedNote]) -> None:
    assert render("text: '{{ customer.name }}'", "a\r\nb\nc").text == "a\nb\nc"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("txet: x", 'there is no field "txet"; did you mean "text"?'),
        ("text: [a]", "text must be text; put it in quotes"),
        ("language: no", "language must be text; put it in quotes"),
        ("text: 2026-01-01", "text must be text; put it in quotes"),
        ("text:", "text must be text; put it in quotes"),
        ("parameters: a", "parameters must be a list, each on a line of its own after a dash"),
        ("parameters: [{a: b}]", "parameters[0] must be text"),
        ("extras: [a]", "extras must be names with values, for example coupon_id: C10"),
        ("extras: {a: [b]}", "extras.a must be text"),
        ("text: '{{ shop.site'", "text: unexpected end of template, expected 'end of print statement'."),
        ("text: '{% if %}'", "text: Expected an expression, got 'end of statement block'"),
        ("text: '{{ shop.site|uper }}'", "text: No filter named 'uper'."),
        ("- a", "write fields and values, for example text: Hello"),
        ("", "write fields and values"),
        ("text: {{ shop.site }}", "line 1: found unhashable key; a value that begins with {{ needs quotes"),
        ("text: 'x", "line 1: "),
    ],
)
def test_file_that_is_no_template(check: Check, content: str, sentence: str) -> None:
    (problem,) = check(content)
    assert problem.startswith(f"templates/winback/en.note.yaml: {sentence}")


def test_missing_language_and_other_encoding(config: Config, folder: Path, check: Check) -> None:
    with pytest.raises(ConfigError) as caught:
        load_note(folder, "winback", "it")
    assert str(caught.value) == (
        "templates/winback/it.note.yaml is missing; add it, or take it out of the locales of what is sent with "
        "winback"
    )
    (folder / "winback" / "fr.note.yaml").write_bytes("text: Été".encode("latin-1"))
    with pytest.raises(ConfigError, match="the file is not UTF-8; save it as UTF-8"):
        load_note(folder, "winback", "fr")


@pytest.mark.parametrize(
    ("content", "kind", "sentences"),
    [
        (
            "text: '{{ customer.frist_name }}'",
            "webhook",
            ['text: variable "customer.frist_name" does not exist; did'],
        ),
        (
            "template: t\nparameters: ['{{ campaign.variables.cod }}', '{{ custmer.name }}']",
            "whatsapp",
            [
                'parameters[0]: variable "campaign.variables.cod" does not exist; did you mean "code"?',
                'parameters[1]: variable "custmer" does not exist; did you mean "customer"?',
            ],
        ),
        ("template: t\nparameters: ['{{ customer.first_name }}']", "whatsapp", ["parameters[0] is empty"]),
        ("text: '{{ customer.first_name }}'", "webhook", ["the message is empty"]),
        ("text: Hello", "whatsapp", ["whatsapp takes marketing only as an approved template"]),
        ("template: t\ntitle: Hi", "whatsapp", ["title is never seen"]),
        ("template: t\nextras: {button: x}", "whatsapp", ["extras.button is nothing that whatsapp knows"]),
        ("template: t\nextras: {button_0: x, header_image: 'https://a.example/b.png'}", "whatsapp", []),
        (
            "text: http://elsewhere.example/",
            "webhook",
            ['the link "http://elsewhere.example/" is neither https nor'],
        ),
        (
            "text: 'https://a.example/{{ customer.first_name }}'",
            "webhook",
            [
                "not everybody gets the link https://a.example/;",
                "not everybody gets the link https://a.example/Ada;",
            ],
        ),
        ("text: 'Stop: {{ unsubscribe_url }}'", "webhook", []),
    ],
)
def test_problems_are_sentences_with_file_and_field(
    check: Check, content: str, kind: str, sentences: list[str]
) -> None:
    problems = check(content, kind)
    if sentences and sentences[0].startswith("not everybody"):
        problems = problems[: len(sentences)]
    assert len(problems) == len(sentences)
    for problem, sentence in zip(problems, sentences, strict=True):
        assert problem.startswith(f"templates/winback/en.note.yaml: {sentence}")


def test_every_channel_of_a_campaign_but_mail_is_checked(config: Config, folder: Path) -> None:
    channels = config.channels_file
    whatsapp = WhatsAppChannel(name="wa", kind="whatsapp", phone_number_id="1", token_env="T")
    campaign = config.campaign("winback").model_copy(update={"fallback": ("wa",), "locales": ("en", "fr")})
    only = config.campaigns_file.model_copy(update={"campaigns": (campaign,)})
    with_whatsapp = channels.model_copy(update={"channels": (*channels.channels, whatsapp)})
    reaching = replace(config, campaigns_file=only, channels_file=with_whatsapp)
    assert check_notes(reaching, ROOT / "templates") == []
    missing = check_notes(reaching, folder)
    assert [problem.split(" ")[0] for problem in missing] == [
        f"templates/winback/{locale}.note.yaml" for locale in ("en", "fr")
    ]
    assert check_notes(config, folder) == []


@pytest.mark.parametrize(
    ("kind", "most"),
    [("whatsapp", 4096), ("messenger", 2000), ("ebay_messages", 2000), ("tiktok_engagement", 500)],
)
def test_longest_text(check: Check, kind: str, most: int) -> None:
    assert check(f"text: '{'é' * most}'", kind, purpose="transactional") == []
    (problem,) = check(f"text: '{'é' * (most + 1)}'", kind, purpose="transactional")
    assert f"text has {most + 1:,} characters, and {kind} takes {most:,}; shorten it" in problem


def test_longest_parameters() -> None:
    assert not list(broken_note_rules(RenderedNote(template="t", parameters=("x" * 1000, "y" * 24)), "whatsapp"))
    (problem,) = broken_note_rules(RenderedNote(template="t", parameters=("x" * 1000, "y" * 25)), "whatsapp")
    assert problem == "parameters have 1,025 characters together, and whatsapp takes 1,024; shorten them"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("See https://a.example/new.", "https://a.example/new"),
        ("(https://a.example/new)", "https://a.example/new"),
        ("https://a.example/n_(x)", "https://a.example/n_(x)"),
        ("https://a.example/?a=1&b=2!", "https://a.example/?a=1&b=2"),
        ("访问https://a.example/new。谢谢", "https://a.example/new"),
        ("访问（https://a.example/new）", "https://a.example/new"),
        ("*https://a.example/new*", "https://a.example/new"),
        ("https://a.example/x_", "https://a.example/x_"),
    ],
)
def test_a_link_ends_where_the_sentence_goes_on(text: str, url: str) -> None:
    note = RenderedNote(text=text, unsubscribe_url=UNSUBSCRIBE)
    assert [link.url for link in find_note_links(note)] == [url]
    assert track_note(note, {url: 7}, lambda number: f"https://t.example/c/{number}").text == text.replace(
        url, "https://t.example/c/7"
    )


def test_links_are_tracked_in_text_and_parameters_and_the_unsubscribe_link_is_not() -> None:
    note = RenderedNote(
        text=f"https://a.example/x?y=1 and https://a.example/x?y=1, or {UNSUBSCRIBE}",
        parameters=("https://a.example/z", "none"),
        extras={"header_image": "https://cdn.example/a.png"},
        unsubscribe_url=UNSUBSCRIBE,
    )
    assert find_note_links(note) == [
        Link("https://a.example/x?y=1", "a.example/x"),
        Link("https://a.example/z", "a.example/z"),
    ]
    tracked = track_note(
        note, {"https://a.example/x?y=1": 1, "https://a.example/z": 2}, lambda n: f"https://t/{n}"
    )
    assert tracked.text == f"https://t/1 and https://t/1, or {UNSUBSCRIBE}"
    assert tracked.parameters == ("https://t/2", "none") and tracked.extras == note.extras
    with pytest.raises(ContentError, match="not known to its plan"):
        track_note(note, {}, str)


WORDS = st.text(alphabet="aé王 .,;:!?()[]*_\n<>\"'/&=#%", max_size=12)
LINKS = st.from_regex(r"https?://[a-z]{1,5}\.example(/[a-z0-9_()?=&#.,]{0,8})?", fullmatch=True)


@given(pieces=st.lists(WORDS | LINKS, max_size=8), parameters=st.lists(WORDS | LINKS, max_size=3).map(tuple))
def test_all_links_that_are_found_are_tracked_and_nothing_else_changes(
    pieces: list[str], parameters: tuple[str, ...]
) -> None:
    note = RenderedNote(text=" ".join(pieces), parameters=parameters)
    found = find_note_links(note)
    numbers = {link.url: number for number, link in enumerate(found, start=1)}
    tracked = track_note(note, numbers, lambda number: f"\ue000{number}\ue001")
    assert not find_note_links(tracked)
    urls = {number: url for url, number in numbers.items()}

    def back(text: str) -> str:
        return re.sub("\ue000([0-9]+)\ue001", lambda match: urls[int(match.group(1))], text)

    assert back(tracked.text) == note.text and tuple(map(back, tracked.parameters)) == note.parameters
    for link in found:
        assert re.match(r"https?://\w", link.url) and not re.search(r"\s", link.url)
