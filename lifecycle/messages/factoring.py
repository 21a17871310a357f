"""Letters that differ only in a few pieces, brought back to one form with places to fill in.

The e-mail services take one form and the values of many people in one request.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lifecycle.messages.records import Letter

Row = tuple[tuple[str, ...], ...]
"""For each part of a letter (subject, html, text, header values) the strings in its places, or around them."""

_TRIED = 8
"""Forms that a letter is tried on before it is taken apart by itself."""


@dataclass(frozen=True)
class Shared:
    """What letters have in common. `values`: by send_id what stands at each place, by the place's name.

    A letter that shares nothing is alone in its Shared, as it is and without places.
    """

    letters: tuple[Letter, ...]
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...]
    values: Mapping[int, Mapping[str, str]]


def factored(
    letters: Sequence[Letter], *, placeholder: Callable[[str], str], interpreted: re.Pattern[str]
) -> list[Shared]:
    """Letters by form. Equal in all letters of one: sender, reply address and the names of the headers.

    placeholder: how the service writes the place of a name, which is letters, digits and `_`. interpreted: what it
    takes for a place or the like; a letter in which that finds something of its own stands alone. No name is in
    the letters, and filling in all values gives each exactly.
    """
    forms: list[_Form] = []
    recent: list[_Form] = []
    for letter in letters:
        if any(interpreted.search(part) for part in _parts(letter)):
            forms.append(_Form(_frame(letter), (), [letter]))
            continue
        form = _form_of(letter, recent)
        if len(form.letters) == 1:
            forms.append(form)
        else:
            recent.remove(form)
        recent.insert(0, form)
    return list(itertools.chain.from_iterable(form.shared(placeholder, interpreted) for form in forms))


def alone(letter: Letter) -> Shared:
    return Shared((letter,), letter.subject, letter.html, letter.text, letter.headers, {letter.send_id: {}})


@dataclass(eq=False)
class _Form:
    """`around`: what stands around the places of each part. `rows`: what stands in them, letter by letter."""

    frame: Row
    around: Row
    letters: list[Letter] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add(self, letter: Letter, row: Row) -> None:
        self.letters.append(letter)
        self.rows.append(row)

    def fits(self, frame: Row, parts: Sequence[str]) -> Row | None:
        """What stands in the places, where the letter has the form and most of it is the form's own words."""
        if frame != self.frame:
            return None
        row: list[tuple[str, ...]] = []
        left = sum(map(len, parts)) // 2
        for part, around in zip(parts, self.around, strict=True):
            values = _between(part, around)
            if values is None or (left := left - sum(map(len, values))) < 0:
                return None
            row.append(values)
        return tuple(row)

    def shared(self, placeholder: Callable[[str], str], interpreted: re.Pattern[str]) -> Iterable[Shared]:
        if len(self.letters) > 1:
            together = self._together(placeholder)
            places = {placeholder(name) for name in next(iter(together.values.values()))}
            parts = (together.subject, together.html, together.text, *(value for _, value in together.headers))
            if all(match.group() in places for part in parts for match in interpreted.finditer(part)):
                return [together]
        return map(alone, self.letters)

    def _together(self, placeholder: Callable[[str], str]) -> Shared:
        columns = list(zip(*(itertools.chain.from_iterable(row) for row in self.rows), strict=True))
        mark = _absent(part for letter in self.letters for part in _parts(letter))
        names: dict[tuple[str, ...], str] = {}
        fillings = iter(
            [
                column[0]
                if len(set(column)) == 1
                else placeholder(names.setdefault(column, f"{mark}{len(names)}"))
                for column in columns
            ]
        )
        subject, page, text, *header_values = (
            around[0] + "".join(next(fillings) + words for words in around[1:]) for around in self.around
        )
        return Shared(
            tuple(self.letters),
            subject,
            page,
            text,
            tuple(zip((name for name, _ in self.letters[0].headers), header_values, strict=True)),
            {
                letter.send_id: {name: column[number] for column, name in names.items()}
                for number, letter in enumerate(self.letters)
            },
        )


def _form_of(letter: Letter, recent: Sequence[_Form]) -> _Form:
    """The form that the letter has, one of the recent or its own, to which it is added."""
    frame, parts = _frame(letter), _parts(letter)
    for form in recent[:_TRIED]:
        row = form.fits(frame, parts)
        if row is not None:
            form.add(letter, row)
            return form
    around, row = _taken_apart(parts, letter.personal)
    form = next((each for each in recent if (each.frame, each.around) == (frame, around)), _Form(frame, around))
    form.add(letter, row)
    return form


def _frame(letter: Letter) -> Row:
    names = tuple(name for name, _ in letter.headers)
    return (letter.sender_name, letter.sender_address, letter.reply_to), names


def _parts(letter: Letter) -> tuple[str, ...]:
    return letter.subject, letter.html, letter.text, *(value for _, value in letter.headers)


def _taken_apart(parts: Sequence[str], personal: Sequence[str]) -> tuple[Row, Row]:
    """What stands around the personal pieces, and the pieces, longer ones first."""
    pieces = sorted(filter(None, personal), key=len, reverse=True)
    if not pieces:
        return tuple((part,) for part in parts), tuple(() for _ in parts)
    split = re.compile(f"({'|'.join(map(re.escape, pieces))})").split
    taken = [split(part) for part in parts]
    return tuple(tuple(each[::2]) for each in taken), tuple(tuple(each[1::2]) for each in taken)


def _between(part: str, around: Sequence[str]) -> tuple[str, ...] | None:
    """What stands between these words in a text that begins with the first and ends with the last of them."""
    first, last = around[0], around[-1]
    if len(around) == 1:
        return () if part == first else None
    end = len(part) - len(last)
    at = len(first)
    if at > end or not part.startswith(first) or not part.endswith(last):
        return None
    values = []
    for words in around[1:-1]:
        found = part.find(words, at, end)
        if found < 0:
            return None
        values.append(part[at:found])
        at = found + len(words)
    return (*values, part[at:end])


def _absent(texts: Iterable[str]) -> str:
    """The beginning of names that occurs in none of the texts."""
    everything = "\n".join(texts)
    return next(mark for number in itertools.count() if (mark := f"place{number}_") not in everything)
