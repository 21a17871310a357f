"""Forms of letters: filled in, they are the letters to the last byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.messages.factoring import Shared, factored
from lifecycle.messages.records import Letter

Fill = Callable[[str, Mapping[str, str]], str]


def one_after_another(words: str, values: Mapping[str, str]) -> str:
    for name, value in reversed(list(values.items())):
        words = words.replace(f"-{name}-", value)
    return words


def by_pattern(pattern: str) -> Fill:
    return lambda words, values: re.sub(pattern, lambda place: values.get(place[1], ""), words)


WAYS: dict[str, tuple[Callable[[str], str], str, Fill]] = {
    "sendgrid": (lambda name: f"-{name}-", r"(?!)", one_after_another),
    "mailgun": (lambda name: f"%recipient.{name}%", r"%recipient[^%\s]*%", by_pattern(r"%recipient\.([^%\s]+)%")),
    "ses": (
        lambda name: f"{{{{{name}}}}}",
        r"[\\{}]*\{\{[^{}]*[{}]*",
        by_pattern(r"\\?\{\{\{?\s*([^{}]*)\}?\}\}"),
    ),
}


def letter(number: int, **changes: object) -> Letter:
    url = f"https://t.example.com/u/{number:030d}"
    name = ("Anna", "王小明", "O'Neil & Söhne")[number % 3]
    plain = Letter(
        send_id=number,
        key=f"<{number}@example.com>",
        envelope_from="b@example.com",
        to=f"person.{number}@example.org",
        sender_name="Atlas",
        sender_address="news@example.com",
        reply_to="care@example.com",
        subject=f"{name}, we miss you",
        html=f"<p>Hello {name}, <a href='{url}'>unsubscribe</a> or come back, {name}. You are dear to us.</p>",
        text=f"Hello {name},\ncome back to our shop, where there is much that is new: {url}\n"
        + "It has grown. " * 20,
        headers=(("List-Unsubscribe", f"<{url}>"), ("Feedback-ID", "a:b:c")),
        personal=(url, name),
        what="winback",
        purpose="marketing",
        shop="fr",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def shared(letters: list[Letter], way: str = "sendgrid") -> list[Shared]:
    place, interpreted, _ = WAYS[way]
    return factored(letters, placeholder=place, interpreted=re.compile(interpreted))


def filled(form: Shared, number: int, fill: Fill) -> tuple[object, ...]:
    values = form.values[number]
    headers = tuple((name, fill(value, values)) for name, value in form.headers)
    return fill(form.subject, values), fill(form.html, values), fill(form.text, values), headers


def as_it_is(each: Letter) -> tuple[object, ...]:
    return each.subject, each.html, each.text, each.headers


@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_people_share_one_form(way: str) -> None:
    letters = [letter(number) for number in range(1000)]
    (form,) = shared(letters, way)
    assert form.letters == tuple(letters)
    assert len(form.values[1]) == 2, "the name and the address, however often they stand there"
    assert all(filled(form, one.send_id, WAYS[way][2]) == as_it_is(one) for one in letters)


def test_a_name_that_is_also_a_word_of_the_mail_changes_nothing() -> None:
    rose = [letter(number, html=letter(number).html + "A rose is a rose.") for number in range(30)]
    odd = letter(40, html=letter(40).html + "A rose is a rose.", personal=(*letter(40).personal, "rose"))
    for letters in ([*rose, odd], [odd, *rose]):
        (form,) = shared(letters)
        assert all(filled(form, one.send_id, one_after_another) == as_it_is(one) for one in letters)


def test_only_letters_of_one_sender_and_with_the_same_headers_share() -> None:
    letters = [
        letter(1),
        letter(2, sender_name="Other"),
        letter(3, reply_to="x@example.com"),
        letter(4, sender_address="x@example.com"),
        letter(5, headers=(("Feedback-ID", "a"), ("List-Unsubscribe", "b"))),
        letter(6),
    ]
    assert [[one.send_id for one in form.letters] for form in shared(letters)] == [[1, 6], [2], [3], [4], [5]]


@pytest.mark.parametrize("way", ["mailgun", "ses"])
@pytest.mark.parametrize("field", ["subject", "html", "text"])
def test_words_that_the_service_would_read_as_a_place_go_alone_and_whole(way: str, field: str) -> None:
    words = "%recipient.id% {{name}}"
    odd = letter(7, **{field: f"Hello {words}"})
    forms = shared([letter(1), odd, letter(2)], way)
    assert [len(form.letters) for form in forms] == [2, 1]
    assert as_it_is(odd) == (forms[1].subject, forms[1].html, forms[1].text, forms[1].headers)
    assert forms[1].values == {7: {}}


def test_braces_next_to_a_place_go_alone() -> None:
    letters = [letter(number, text=f"{{https://t.example.com/u/{number:030d}}}" + "x" * 99) for number in (1, 2)]
    assert [len(form.letters) for form in shared(letters, "ses")] == [1, 1]
    assert [len(form.letters) for form in shared(letters, "mailgun")] == [2]


def test_names_of_places_never_occur_in_a_mail() -> None:
    letters = [letter(number, subject=f"place0_0 place1_ {letter(number).subject}") for number in (1, 2)]
    (form,) = shared(letters)
    assert all(name.startswith("place2_") for name in form.values[1])
    assert [filled(form, one.send_id, one_after_another) for one in letters] == [as_it_is(one) for one in letters]


WORDS = st.lists(
    st.sampled_from(
        ["Anna", "a", "\\", "{", "}", "{{", "}}", "%", "%recipient.", "recipient", "place0_", "0", "-",
         "-place0_0-", "\n", "\0", "é", "王", " ", "&amp;", "{{place0_0}}", "%recipient.place0_0%", "https://t.example/"]
    ),
    max_size=5,
).map("".join)  # fmt: skip
TEMPLATES = st.lists(st.lists(st.one_of(WORDS, st.integers(0, 3)), max_size=6), min_size=4, max_size=4)


@st.composite
def letters(draw: st.DrawFn) -> list[Letter]:
    """Of a few templates: lists of words and of numbers of pieces, for subject, html, text and a header."""
    templates = draw(st.lists(TEMPLATES, min_size=1, max_size=3))
    made = []
    for number in range(draw(st.integers(1, 8))):
        pieces = draw(st.lists(WORDS, min_size=4, max_size=4))
        template = draw(st.sampled_from(templates))
        parts = ["".join(pieces[each] if isinstance(each, int) else each for each in part) for part in template]
        made.append(
            letter(
                number,
                subject=parts[0],
                html=parts[1],
                text=parts[2],
                headers=(("X-One", parts[3]), ("X-Two", "always")),
                personal=tuple(draw(st.permutations(pieces))),
                sender_name=draw(st.sampled_from(["Atlas", "Brand"])),
            )
        )
    return made


@pytest.mark.parametrize("way", WAYS)
@given(some=letters())
@settings(max_examples=100, deadline=None)
def test_filling_in_gives_every_letter_exactly(way: str, some: list[Letter]) -> None:
    forms = shared(some, way)
    assert sorted(one.send_id for form in forms for one in form.letters) == [one.send_id for one in some]
    for form in forms:
        assert set(form.values) == {one.send_id for one in form.letters}
        assert len({(one.sender_name, one.sender_address, one.reply_to) for one in form.letters}) == 1
        for one in form.letters:
            if len(form.letters) > 1:
                assert filled(form, one.send_id, WAYS[way][2]) == as_it_is(one)
            else:
                assert (form.subject, form.html, form.text, form.headers) == as_it_is(one)
