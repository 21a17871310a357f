"""The language of rule segments: text to a syntax tree and back. Nothing is looked up, nothing is evaluated.

    orders_12m >= 2 and country in [FR, DE] and not in vip
    spend > 500 and refund_share < 20% or bought any of ["SKU-1", "SKU-2"] within 90 days

`or` binds less than `and`, `and` less than `not`. Keywords may be in any case, names may not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from lifecycle.errors import suggest

MAX_LENGTH = 10_000
MAX_DEPTH = 50
MAX_DIGITS = 18
"""What a 64-bit integer of the database always holds."""
MAX_DAYS = 36_500
"""A hundred years: subtracted from any `as_of`, still a date."""

Value = int | Decimal | datetime | str | bool
Op = Literal["=", "!=", "<", "<=", ">", ">="]
BoughtKind = Literal["sku", "category"]
HappenedKind = Literal["messaged", "opened", "clicked"]


class LanguageError(ValueError):
    """One sentence for the author of the text; `at` is the offset of the character it is about."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class _Leaf:
    at: int = field(default=0, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Compare(_Leaf):
    name: str
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class Between(_Leaf):
    """Both ends are included."""

    name: str
    low: Value
    high: Value


@dataclass(frozen=True, slots=True)
class OneOf(_Leaf):
    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Known(_Leaf):
    name: str


@dataclass(frozen=True, slots=True)
class InSegment(_Leaf):
    segment: str


@dataclass(frozen=True, slots=True)
class HasTag(_Leaf):
    tag: str


@dataclass(frozen=True, slots=True)
class Bought(_Leaf):
    """Any one of `values`; at any time when `within_days` is None."""

    kind: BoughtKind
    values: tuple[str, ...]
    within_days: int | None = None


@dataclass(frozen=True, slots=True)
class Happened(_Leaf):
    kind: HappenedKind
    within_days: int


@dataclass(frozen=True, slots=True)
class And:
    """Two or more."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Two or more."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Expression


Leaf = Compare | Between | OneOf | Known | InSegment | HasTag | Bought | Happened
Expression = And | Or | Not | Leaf


def parse(text: str) -> Expression:
    """The tree of `text`; raises LanguageError."""
    if len(text) > MAX_LENGTH:
        raise LanguageError(f"the text has {len(text):,} characters; at most {MAX_LENGTH:,} are read", MAX_LENGTH)
    return _Parser(text).whole()


def leaves(expression: Expression) -> Iterator[Leaf]:
    """From left to right."""
    match expression:
        case And(items) | Or(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case _:
            yield expression


def names(expression: Expression) -> dict[str, int]:
    """The metrics and attributes used, each with the offset of its first use."""
    found: dict[str, int] = {}
    for leaf in leaves(expression):
        if isinstance(leaf, Compare | Between | OneOf | Known):
            found.setdefault(leaf.name, leaf.at)
    return found


def segments(expression: Expression) -> dict[str, int]:
    """The segments used by `in SEGMENT`, each with the offset of its first use."""
    found: dict[str, int] = {}
    for leaf in leaves(expression):
        if isinstance(leaf, InSegment):
            found.setdefault(leaf.segment, leaf.at)
    return found


def check_names(expression: Expression, known: Iterable[str], segments: Iterable[str]) -> list[str]:
    """A sentence for each metric that is not among `known` and each segment that is not among `segments`, in
    their order in the text. Attributes are whatever a shop sends, so any may be used."""
    metrics, defined = set(known), set(segments)
    sentences = (_unknown(leaf, metrics, defined) for leaf in leaves(expression))
    return list(dict.fromkeys(sentence for sentence in sentences if sentence))


def _unknown(leaf: Leaf, metrics: set[str], defined: set[str]) -> str | None:
    match leaf:
        case InSegment(segment) if segment not in defined:
            return f'segment "{segment}" is not defined{suggest(segment, defined)}'
        case Compare(name) | Between(name) | OneOf(name) | Known(name):
            if name not in metrics and not name.startswith("attributes."):
                hint = f"; it is a segment: write in {name}" if name in defined else suggest(name, metrics)
                return f'there is no metric "{name}"{hint}'
    return None


def to_text(expression: Expression) -> str:
    """Canonical text that parses to the same tree."""
    match expression:
        case And(items):
            return " and ".join(_inside(item, And | Or) for item in items)
        case Or(items):
            return " or ".join(_inside(item, Or) for item in items)
        case Not(OneOf(name, values)):
            return f"{name} not in {_list(values)}"
        case Not(Known(name)):
            return f"{name} is unknown"
        case Not(item):
            return f"not {_inside(item, And | Or)}"
        case Compare(name, op, value):
            return f"{name} {op} {_literal(value)}"
        case Between(name, low, high):
            return f"{name} between {_literal(low)} and {_literal(high)}"
        case OneOf(name, values):
            return f"{name} in {_list(values)}"
        case Known(name):
            return f"{name} is known"
        case InSegment(segment):
            return f"in {segment}"
        case HasTag(tag):
            return f"tag {_quoted(tag)}"
        case Bought(kind, texts, days):
            quoted = ", ".join(map(_quoted, texts))
            what = quoted if len(texts) == 1 else f"any of [{quoted}]"
            category = "category " if kind == "category" else ""
            return f"bought {category}{what}" + (f" {_within(days)}" if days else "")
        case Happened(kind, days):
            return f"{kind} {_within(days)}"


def _inside(item: Expression, bracketed: Any) -> str:
    return f"({to_text(item)})" if isinstance(item, bracketed) else to_text(item)


def _list(values: Iterable[Value]) -> str:
    return f"[{', '.join(map(_literal, values))}]"


def _within(days: int) -> str:
    return f"within {days} day{'s' * (days != 1)}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Decimal():
            text = f"{value:f}"
            return text if "." in text else f"{text}.0"
        case datetime():
            day, _, time = value.astimezone(UTC).isoformat().partition("T")
            return day if time == "00:00:00+00:00" else f"{day}T{time.removesuffix('+00:00')}Z"
        case str():
            bare = re.fullmatch(r"[^\W\d][\w-]*", value) and value.lower() not in {*_JOINING, *_BOOLS}
            return value if bare else _quoted(value)
    return str(value)


_JOINING = ("and", "or", "not")
"""Never values without quotes. All other keywords may be: IN is India and IS is Iceland."""
_BOOLS = {"true": True, "false": False}
_OPS: dict[str, Op] = {"=": "=", "==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MIRRORED: dict[Op, Op] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_HAPPENED: dict[str, HappenedKind] = {"messaged": "messaged", "opened": "opened", "clicked": "clicked"}
_EXAMPLE = "for example orders_12m >= 2"

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<word>[^\W\d][\w-]*(?:\.[\w-]+)*)
    | (?P<literal>-?[0-9][\w.:+%-]*)
    | (?P<quoted>"(?:[^"\x00-\x1f\ud800-\udfff]|"")*+"|'(?:[^'\x00-\x1f\ud800-\udfff]|'')*+')
    | (?P<foreign>:=|&&|\|\||<>|=>|=<|===)
    | (?P<symbol>[=!<>]=|[=<>()\[\],])
    | (?P<unknown>.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"(-?[0-9]+)(\.[0-9]+)?(%)?")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+)?)?")
_ADVICE = {
    ":=": "nothing is assigned here, write = to compare", "===": "write =", "&&": "write and", "&": "write and",
    "||": "write or", "|": "write or", "!": "write not", "<>": "write !=", "≠": "write !=", "=>": "write >=",
    "≥": "write >=", "=<": "write <=", "≤": "write <=", "“": 'write "', "”": 'write "', "„": 'write "',
    "%": "write it right after the number, for example 20%",
    '"': 'this text has no closing " on its line', "'": "this text has no closing ' on its line",
}  # fmt: skip


class _Token(NamedTuple):
    kind: Literal["word", "value", "symbol", "end"]
    text: str
    at: int
    value: Value = ""

    @property
    def key(self) -> str:
        """What the grammar compares with; values are never keywords, whatever they say."""
        return self.text.lower() if self.kind in ("word", "symbol") else ""

    @property
    def is_value(self) -> bool:
        return self.kind == "value" or (self.kind == "word" and self.key not in _JOINING)

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        piece, at = match[0], match.start()
        match match.lastgroup:
            case "word":
                yield _Token("word", piece, at, _BOOLS.get(piece.lower(), piece))
            case "symbol":
                yield _Token("symbol", piece, at)
            case "quoted":
                yield _Token("value", piece, at, piece[1:-1].replace(piece[0] * 2, piece[0]))
            case "literal":
                yield _Token("value", piece, at, _number_or_instant(piece, at))
            case "foreign" | "unknown":
                raise _error(piece, at, _ADVICE.get(piece, "this has no meaning outside quotes"))
    yield _Token("end", "", len(text))


def _number_or_instant(piece: str, at: int) -> Value:
    if number := _NUMBER.fullmatch(piece):
        if sum(map(str.isdigit, piece)) > MAX_DIGITS:
            raise _error(piece, at, f"a number has at most {MAX_DIGITS} digits")
        whole, fraction, percent = number.groups(default="")
        if not fraction and not percent:
            return int(whole)
        return Decimal(whole + fraction).scaleb(-2 if percent else 0).normalize()
    if instant := _INSTANT.fullmatch(piece):
        time, zone = instant.groups()
        if time and not zone:
            raise _error(piece, at, f"an instant needs its time zone, for example {piece}Z or {piece}+01:00")
        try:
            return datetime.fromisoformat(piece if time else f"{piece}T00Z").astimezone(UTC)
        except (ValueError, OverflowError):
            raise _error(piece, at, "there is no such date or time") from None
    raise _error(piece, at, "this is no number, percentage, date or instant; text of this kind needs quotes")


def _error(piece: str, at: int, problem: str) -> LanguageError:
    return LanguageError(f"at {_short(piece)} (character {at + 1}): {problem}", at)


def _short(piece: str) -> str:
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(piece.split()))
    return f'"{line}"' if len(line) <= 60 else f'"{line[:28]} … {line[-28:]}"'


def _kind(value: Value) -> str:
    match value:
        case bool():
            return "true and false"
        case datetime():
            return "dates"
        case str():
            return "text"
    return "numbers"


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0
        self.depth = 0
        self.condition_at = 0

    def whole(self) -> Expression:
        expression = self._or()
        if self.next.kind != "end":
            raise self._unjoined('the word "and" or "or"')
        return expression

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def _advance(self) -> _Token:
        token = self.next
        self.position += 1
        return token

    def _take(self, *keys: str) -> _Token | None:
        return self._advance() if self.next.key in keys else None

    def _require(self, *keys: str, expected: str) -> None:
        if not self._take(*keys):
            raise self._expected(expected)

    def _or(self) -> Expression:
        items = [self._and()]
        while self._take("or"):
            items.append(self._and())
        return Or(tuple(items)) if len(items) > 1 else items[0]

    def _and(self) -> Expression:
        items = [self._not()]
        while self._take("and"):
            items.append(self._not())
        return And(tuple(items)) if len(items) > 1 else items[0]

    def _not(self) -> Expression:
        return Not(self._nested(self._not)) if self._take("not") else self._condition()

    def _nested(self, read: Callable[[], Expression]) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            opening = self.tokens[self.position - 1]
            raise _error(opening.text, opening.at, f"more than {MAX_DEPTH} levels of ( and not are not read")
        expression = read()
        self.depth -= 1
        return expression

    def _condition(self) -> Expression:
        token = self.next
        self.condition_at = token.at
        if self._take("("):
            return self._group(token)
        if self._take("in"):
            return self._in_segment()
        if self._take("tag"):
            return HasTag(self._text("a tag in quotes"), at=token.at)
        if self._take("bought"):
            return self._bought(token.at)
        if self._take(*_HAPPENED):
            self._require("within", expected="a time is expected, for example within 30 days")
            return Happened(_HAPPENED[token.key], self._days(), at=token.at)
        if token.kind == "value" or token.key in _BOOLS:
            raise self._value_first()
        if token.kind == "word" and token.key not in (*_JOINING, "between", "is"):
            return self._about(self._advance())
        raise self._expected(f"a condition is expected, {_EXAMPLE}")

    def _group(self, opening: _Token) -> Expression:
        inner = self._nested(self._or)
        if self.next.kind == "end":
            raise _error("(", opening.at, "this parenthesis is never closed")
        if not self._take(")"):
            raise self._unjoined('a ")", "and" or "or"')
        return inner

    def _in_segment(self) -> InSegment:
        if self.next.key == "[":
            raise self._expected("a segment is expected; a list has a name before it, for example country in [FR]")
        if self.next.kind != "word" or self.next.key in _JOINING:
            raise self._expected("a segment is expected, without quotes, for example in vip")
        token = self._advance()
        return InSegment(token.text, at=token.at)

    def _bought(self, at: int) -> Bought:
        kind: BoughtKind = "category" if self._take("category") else "sku"
        if self._take("any"):
            self._require("of", expected='the word "of" is expected, for example any of ["A", "B"]')
            values = tuple(map(str, self._values(of="text")))
        else:
            values = (self._text("a SKU in quotes" if kind == "sku" else "a category in quotes"),)
        return Bought(kind, values, self._days() if self._take("within") else None, at=at)

    def _days(self) -> int:
        token = self.next
        if type(token.value) is not int:
            raise self._expected("a whole number of days is expected, for example 30 days")
        if not 1 <= token.value <= MAX_DAYS:
            raise _error(token.text, token.at, f"a number of days from 1 to {MAX_DAYS} is expected")
        self._advance()
        self._require("days", "day", expected='the word "days" is expected')
        return token.value

    def _about(self, name: _Token) -> Expression:
        if self.next.key in _OPS:
            return self._compare(name)
        if self._take("between"):
            return self._between(name)
        if self._take("in"):
            return OneOf(name.text, self._values(), at=name.at)
        if self._take("not"):
            self._require("in", expected=f'only "in" and a list can follow; write not {name.text} …')
            return Not(OneOf(name.text, self._values(), at=name.at))
        if self._take("is"):
            if not (word := self._take("known", "unknown")):
                raise self._expected('the word "known" or "unknown" is expected')
            known = Known(name.text, at=name.at)
            return known if word.key == "known" else Not(known)
        if self.next.key == "(":
            raise _error(f"{name.text}(", name.at, f"nothing can be called here; write a comparison, {_EXAMPLE}")
        raise self._expected(
            f"a comparison is expected, for example {name.text} >= 2, or in {name.text} if it is a segment"
        )

    def _compare(self, name: _Token) -> Compare:
        op, first = _OPS[self._advance().key], self.next
        value = self._value(f"; a list is written {name.text} in [A, B]" if first.key == "[" else "")
        if op not in ("=", "!=") and _kind(value) not in ("numbers", "dates"):
            raise _error(first.text, first.at, f"{op} compares with a number or a date, not with {_kind(value)}")
        if self.next.key in _OPS:
            advice = f"write {name.text} between … and …, or join two comparisons with and"
            raise _error(self.next.text, self.next.at, f"a comparison has one operator; {advice}")
        return Compare(name.text, op, value, at=name.at)

    def _between(self, name: _Token) -> Between:
        first = self.next
        low: Any = self._value()
        self._require("and", expected='the word "and" is expected, with the upper end after it')
        high: Any = self._value()
        if _kind(low) != _kind(high) or _kind(low) not in ("numbers", "dates"):
            raise _error(first.text, first.at, "between takes two numbers or two dates")
        if low > high:
            raise _error(first.text, first.at, "between starts with the lower end")
        return Between(name.text, low, high, at=name.at)

    def _values(self, of: str = "") -> tuple[Value, ...]:
        self._require("[", expected="a list in square brackets is expected, for example [A, B]")
        if self.next.key == "]":
            raise self._expected("a value is expected: a list is never empty")
        values = [self._item(of)]
        while self._take(","):
            values.append(self._item(of or _kind(values[0])))
        self._require("]", expected='a "," or "]" is expected')
        return tuple(values)

    def _item(self, of: str) -> Value:
        token, value = self.next, self._value()
        if of and _kind(value) != of:
            takes = f"{_kind(value)} only in quotes" if of == "text" else f"no {_kind(value)}"
            raise _error(token.text, token.at, f"a list of {of} takes {takes}")
        return value

    def _text(self, expected: str) -> str:
        token = self.next
        if not token.is_value or not isinstance(token.value, str):
            raise self._expected(f"{expected} is expected")
        self._advance()
        return token.value

    def _value(self, hint: str = "") -> Value:
        token = self.next
        if token.is_value:
            return self._advance().value
        if token.key in _JOINING:
            hint = f'; "{token.text}" as a value needs quotes'
        raise self._expected(f"a value is expected, for example 2{hint}")

    def _value_first(self) -> LanguageError:
        """What to say about `2 < orders` and `1 < orders < 3`."""
        value, op, name, op2, value2 = (self.tokens + [self.tokens[-1]] * 4)[self.position : self.position + 5]
        if op.key not in _OPS or name.kind != "word":
            return self._expected(f"a condition is expected, which starts with a name, {_EXAMPLE}")
        turned = f"{name.text} {_MIRRORED[_OPS[op.key]]} {value.text}"
        if op2.key not in _OPS or not value2.is_value:
            return _error(value.text, value.at, f"the name comes first: write {turned}")
        both = f"{turned} and {name.text} {_OPS[op2.key]} {value2.text}"
        if op.key[0] == op2.key[0] and op.key[0] in "<>":
            low, high = (value, value2) if op.key[0] == "<" else (value2, value)
            both = f"{name.text} between {low.text} and {high.text} (both included), or {both}"
        return _error(self.text[value.at : value2.end], value.at, f"write {both}")

    def _unjoined(self, expected: str) -> LanguageError:
        token, before = self.next, self.tokens[self.position - 1]
        if token.key == ")":
            return _error(")", token.at, "there is no ( that this closes")
        hint = "; text of several words needs quotes" if token.kind == before.kind == "word" else ""
        hint = "; numbers are written without commas: 1000, 0.5" if token.key == "," else hint
        return self._expected(f"{expected} is expected{hint}")

    def _expected(self, what: str) -> LanguageError:
        token = self.next
        before = self.tokens[self.position - 1] if self.position else None
        if before is None and token.kind == "end":
            return LanguageError(f"the text is empty: {what}", 0)
        read = self.text[self.condition_at : before.end] if before else ""
        after = f"after {_short(read or before.text)} {what}" if before else what
        return LanguageError(after, token.at) if token.kind == "end" else _error(token.text, token.at, after)
