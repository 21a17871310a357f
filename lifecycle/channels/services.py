"""What the HTTP interfaces of e-mail services have in common.

A request carries many letters: either each whole, or one form with everybody's values (`messages.factoring`). What
the service says of a request holds for all letters in it; where it says that some are in the way, nothing of the
request was taken, and the others are asked for again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import httpx

from lifecycle.channels.base import Outcome, Refused, Unknown
from lifecycle.channels.http import AnswerLost, HttpChannel, HttpPeer, without_addresses
from lifecycle.errors import ChannelDown, ConfigError, ContentError
from lifecycle.messages.factoring import Shared
from lifecycle.messages.headers import address_header, check_address, header, mailbox_header, text_header
from lifecycle.messages.records import Letter, Outgoing
from lifecycle.settings.channels import EmailService

Answers = Sequence[tuple[Letter, Outcome]]

_SERVICE_WRITES = frozenset(
    {
        "bcc",
        "cc",
        "content-transfer-encoding",
        "content-type",
        "date",
        "dkim-signature",
        "from",
        "message-id",
        "mime-version",
        "received",
        "reply-to",
        "return-path",
        "sender",
        "subject",
        "to",
    }
)
_AS_BASE64 = 1.37
"""Bytes of a mail for each byte of its words."""


@dataclass(frozen=True)
class Request:
    """`shared`: None where each letter is sent whole."""

    letters: tuple[Letter, ...]
    shared: Shared | None = None

    def of(self, letters: Sequence[Letter]) -> Request:
        """The same with only some of its letters; of one it is the whole."""
        return Request(tuple(letters), self.shared if len(letters) > 1 else None)

    def values(self, letter: Letter) -> Mapping[str, str]:
        return self.shared.values[letter.send_id] if self.shared else {}

    def size_of_own(self, letter: Letter) -> int:
        """Bytes that a letter adds to the form, roughly."""
        return 1_000 + values_size(dict(letter.headers)) + values_size(self.values(letter))

    @property
    def form(self) -> Shared | Letter:
        """Subject, html, text and headers."""
        return self.shared or self.letters[0]


@dataclass(frozen=True)
class Result:
    """`again`: letters of a request of which nothing was taken, differently put together. `down`: why nothing more
    can be asked; the letters without an answer were not taken."""

    answers: Answers = ()
    again: Sequence[Request] = ()
    down: ChannelDown | None = None


class ServiceChannel(HttpChannel, ABC):
    """`at_once`: letters in one request. `largest`: bytes of one mail, all its parts encoded.

    Raises ConfigError where the key cannot stand in a header.
    """

    name: ClassVar[str]
    at_once: int
    largest: ClassVar[int]

    def __init__(self, settings: EmailService, url: str, *, key: str, headers: Mapping[str, str]) -> None:
        if not key or not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"config/channels.yaml: {settings.key_env} is empty or has a line break or a character that is "
                f"not ASCII; copy the key of {self.name} again"
            )
        self._settings = settings
        super().__init__(
            HttpPeer(
                self.name,
                settings.url or url,
                timeout_seconds=settings.timeout_seconds,
                headers={"Accept": "application/json", **headers},
            )
        )

    def send(
        self, messages: Sequence[Letter], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """As `Channel.send`. After an answer that was lost nothing more is asked: each further request might only
        become one more that nobody knows of."""
        sound = []
        for letter in messages:
            problem = self._problem(letter)
            if problem is None:
                sound.append(letter)
            else:
                yield letter, Refused("", problem, permanent=True, kind="content")
        waiting = deque(self._requests(sound))
        begun: set[int] = set()
        while waiting:
            request = waiting.popleft()
            for letter in request.letters:
                if letter.send_id not in begun:
                    begun.add(letter.send_id)
                    begin(letter)
            try:
                result = self._ask(request)
            except AnswerLost as lost:
                yield from ((letter, Unknown(str(lost))) for letter in request.letters)
                if waiting:
                    raise ChannelDown(f"{lost}; the rest has not left", taken_none=True) from None
                return
            yield from result.answers
            if result.down:
                raise result.down
            waiting.extendleft(reversed(result.again))

    @abstractmethod
    def _requests(self, letters: Sequence[Letter]) -> Iterable[Request]: ...

    @abstractmethod
    def _ask(self, request: Request) -> Result:
        """One answer for each letter, or the letter is in a request to be asked again. Raises AnswerLost and
        ChannelDown."""

    def _too_large(self, letter: Letter) -> str | None:
        """Which limit of the service the letter is over."""
        size = _AS_BASE64 * (size_of(letter.html) + size_of(letter.text)) + size_of(letter.subject)
        return f"a mail of {size:,.0f} bytes, where {self.largest:,} fit" if size > self.largest else None

    def _problem(self, letter: Letter) -> str | None:
        """Why no such letter can be sent through any service, or through this one."""
        try:
            check(letter)
        except ContentError as error:
            return str(error)
        too_large = self._too_large(letter)
        return f"{self.name} does not take {too_large}" if too_large else None


def check(letter: Letter) -> None:
    """Raises ContentError for what would not arrive as it is, or as something else than it is."""
    check_address("To", letter.to)
    mailbox_header("From", letter.sender_name, letter.sender_address)
    if letter.reply_to:
        address_header("Reply-To", letter.reply_to)
    if not letter.subject:
        raise ContentError("the subject is empty")
    text_header("Subject", letter.subject)
    if not (letter.text or letter.html):
        raise ContentError("the mail has no words")
    header("Message-ID", letter.key)
    for name, value in letter.headers:
        if not (name and name.isascii() and name.isprintable() and not set(name) & set(": ")):
            raise ContentError("a header has a name that cannot stand in a mail")
        header(name, value)
        if not value or name.lower() in _SERVICE_WRITES:
            raise ContentError(f"{name} is empty or a header that the service writes itself")
    if len({name.lower() for name, _ in letter.headers}) < len(letter.headers):
        raise ContentError("the mail has a header twice")
    try:
        size_of(letter.html + letter.text)
    except UnicodeEncodeError:
        raise ContentError("the mail has a character that cannot be encoded") from None


def marks(letter: Letter) -> dict[str, str]:
    """What a service keeps with a mail and says again in its reports and look-ups: our number, and a word that no
    other ledger with the same numbers has."""
    return {"send_id": str(letter.send_id), "send_key": send_key(letter.key)}


def send_key(key: str) -> str:
    """The part of a Message-ID before the @, as Postmark's fields hold no more than 80 characters."""
    return key.strip("<>").partition("@")[0][:80]


def parts_of(shared: Iterable[Shared], *, most: int, values_bytes: int, weight: int) -> Iterator[Request]:
    """Requests of at most `most` letters, no address twice in any, and at most `weight` bytes besides the form.

    A letter whose own values have more than `values_bytes` is sent whole.
    """
    for each in shared:
        whole = Request(each.letters, each)
        fitting: list[Letter] = []
        for letter in each.letters:
            if len(each.letters) == 1 or values_size(each.values[letter.send_id]) > values_bytes:
                yield Request((letter,))
            else:
                fitting.append(letter)
        for wave in _no_address_twice(fitting):
            yield from map(whole.of, in_parts(wave, whole.size_of_own, weight, most))


def in_parts(
    letters: Iterable[Letter], weight_of: Callable[[Letter], int], weight: int, most: int
) -> Iterator[list[Letter]]:
    """In order, at most `most` together that weigh no more than `weight`; each that weighs more is by itself."""
    together: list[Letter] = []
    weighs = 0
    for letter in letters:
        own = weight_of(letter)
        if together and (weighs + own > weight or len(together) == most):
            yield together
            together, weighs = [], 0
        together.append(letter)
        weighs += own
    if together:
        yield together


def _no_address_twice(letters: Iterable[Letter]) -> list[list[Letter]]:
    seen: Counter[str] = Counter()
    turns = []
    for letter in letters:
        turns.append((seen[letter.to.lower()], letter))
        seen[letter.to.lower()] += 1
    turns.sort(key=lambda turn: turn[0])
    return [[letter for _, letter in wave] for _, wave in groupby(turns, key=lambda turn: turn[0])]


def mailbox(sender: Letter) -> str:
    """As UTF-8, for interfaces that encode it themselves."""
    name = sender.sender_name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{sender.sender_address}>' if name else sender.sender_address


def size_of(text: str) -> int:
    return len(text.encode())


def values_size(values: Mapping[str, str]) -> int:
    return sum(size_of(name) + size_of(value) + 10 for name, value in values.items())


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def of_all(letters: Iterable[Letter], outcome: Outcome) -> Result:
    return Result([(letter, outcome) for letter in letters])


def words_of(answer: httpx.Response, field: str) -> str:
    """What a service says in an answer that is not a success: a field of its JSON, or else its status."""
    with suppress(ValueError):
        body = answer.json()
        if isinstance(body, dict) and body.get(field):
            return without_addresses(body[field])
    return f"status {answer.status_code}"


def by_status(name: str, answer: httpx.Response, words: str) -> Outcome:
    """What an answer without success means where the service's own words say no more.

    Raises ChannelDown where this cannot be the service's interface.
    """
    status = answer.status_code
    if status >= 500 or status < 300:
        return Unknown(f"{name} answered {status}: {words}")
    if status in (404, 405) or status < 400:
        raise ChannelDown(
            f"{name} has no such address ({status}): {words}; see api.url and api.domain in config/channels.yaml",
            taken_none=True,
            login=True,
        )
    if status in (402, 403):
        return Refused(str(status), words, permanent=True, scope="lane", kind="policy")
    if status == 408:
        return Refused(str(status), words, permanent=False, kind="soft")
    return Refused(str(status), words, permanent=True, kind="content" if status == 413 else "unknown")
