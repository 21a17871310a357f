"""What ends a suppression: an explicit newer opt-in, or somebody by hand. At last any history of consents,
questions, unsubscribes and liftings, against a slow reading of the rules."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select

from lifecycle.addresses import address_hash
from lifecycle.customers.consent import Said, ask, confirm, effective_consent, record
from lifecycle.customers.suppression import active_suppressions, lift_many, suppress
from lifecycle.db.schema import consents, customers, suppressions
from lifecycle.errors import UsageError
from lifecycle.platforms.records import ConsentFact
from lifecycle.settings import Config
from tests.customers.rows import SECRET, contents, customer, take_unchecked

ANN = address_hash(SECRET, "email", "ann@example.com")
BEGIN = datetime(2026, 1, 20, tzinfo=UTC)  # a month later the 29th to 31st are the 28th of February
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
SHOPS = ("atlas", "harbour")
TOPICS = ("promotions", "news")
MONTHS = {"CA": {"implied_purchase": 1}, "KR": {"implied_purchase": 2}}


def day(number: int, **more: float) -> datetime:
    return BEGIN + timedelta(days=number, **more)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with rolled_back(engine) as connection:
        yield connection


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def add_person(connection: Connection, email_hash: str | None = ANN, email: str = "ann@example.com") -> int:
    row = {"seed": 1, "first_seen_at": BEGIN, "updated_at": BEGIN}
    row |= {"email": email, "email_key": email, "email_hash": email_hash} if email_hash else {}
    return int(connection.execute(customers.insert().values(row)).inserted_primary_key[0])


def fact(at: datetime | None, **changes: Any) -> ConsentFact:
    """What a shop itself noted: an explicit opt-in with evidence."""
    plain = ConsentFact("email", "promotions", "granted", "express", at, "shopify", evidence="x", first_hand=True)
    return replace(plain, **changes)


def say(connection: Connection, who: int, *facts: ConsentFact, now: datetime, shop: str = "atlas") -> int:
    return record(connection, shop, [Said(who, each) for each in facts], now=now, months=MONTHS)


def ban(connection: Connection, reason: str = "unsubscribe", *, at: datetime, **options: Any) -> int:
    values = {"channel": "email", "evidence": reason, "occurred_at": at, "recorded_at": at} | options
    return suppress(connection, [ANN], reason, **values)


def banned(connection: Connection, shop: str = "atlas", as_of: datetime | None = None) -> bool:
    held = connection.execute(active_suppressions(as_of)).all()
    return any(row.address_hash == ANN and row.shop in (None, shop) for row in held)


def status(connection: Connection, as_of: datetime, shop: str = "atlas", topic: str = "promotions") -> str | None:
    counting = effective_consent(as_of).subquery()
    query = select(counting.c.status).where(counting.c.shop == shop, counting.c.topic == topic)
    return connection.execute(query).scalar()


def may_write(connection: Connection, now: datetime, shop: str = "atlas", topic: str = "promotions") -> bool:
    return status(connection, now, shop, topic) == "granted" and not banned(connection, shop, now)


@pytest.mark.parametrize("scope", [None, "atlas"])
def test_a_newer_opt_in_at_the_shop_lifts_an_unsubscribe(connection: Connection, scope: str | None) -> None:
    who = add_person(connection)
    ban(connection, at=day(5), shop=scope)
    say(connection, who, fact(day(7)), now=day(8))
    assert may_write(connection, day(8))
    assert banned(connection, as_of=day(7, hours=23)), "it held until the opt-in was known"


@pytest.mark.parametrize(
    "changes",
    [
        {"occurred_at": day(5)},
        {"occurred_at": day(4)},
        {"occurred_at": None},
        {"occurred_at": day(9)},
        {"basis": "soft_opt_in"},
        {"basis": "implied_purchase"},
        {"evidence": None},
        {"evidence": ""},
        {"first_hand": False},
        {"expires_at": day(8)},
        {"channel": "chat"},
        {"status": "withdrawn"},
        {"status": "pending"},
    ],
)
def test_nothing_less_than_a_newer_explicit_opt_in_lifts_it(
    connection: Connection, changes: dict[str, Any]
) -> None:
    who = add_person(connection)
    ban(connection, at=day(5))
    say(connection, who, replace(fact(day(7)), **changes), now=day(8))
    assert banned(connection)


@pytest.mark.parametrize("reason", ["complaint", "hard_bounce", "manual"])
def test_an_opt_in_lifts_only_unsubscribes(connection: Connection, reason: str) -> None:
    who = add_person(connection)
    ban(connection, reason, at=day(5))
    say(connection, who, fact(day(7)), now=day(8))
    assert banned(connection)


def test_an_opt_in_at_one_shop_opens_no_other(connection: Connection) -> None:
    """Unsubscribed everywhere, back at atlas; what others say from before that, now or later, changes nothing."""
    who = add_person(connection)
    say(connection, who, fact(day(1)), now=day(1), shop="harbour")
    ban(connection, at=day(5))
    say(connection, who, fact(day(7)), now=day(7))
    say(connection, who, fact(day(3)), now=day(8), shop="orbit")
    assert may_write(connection, day(9))
    assert not may_write(connection, day(9), "harbour") and not may_write(connection, day(9), "orbit")
    say(connection, who, fact(day(9)), now=day(9), shop="orbit")
    assert may_write(connection, day(9), "orbit") and not may_write(connection, day(9), "harbour")


def test_an_opt_in_to_one_topic_brings_back_no_other(connection: Connection) -> None:
    who = add_person(connection)
    say(connection, who, fact(day(1)), fact(day(6), topic="tips"), now=day(1))
    ban(connection, at=day(5))
    say(connection, who, fact(day(7), topic="news"), now=day(7))
    assert [may_write(connection, day(8), topic=topic) for topic in ("promotions", "tips", "news")] == [
        False, True, True,
    ]  # fmt: skip


def test_an_unsubscribe_again_holds_again_and_its_old_report_does_not(connection: Connection) -> None:
    who = add_person(connection)
    ban(connection, at=day(5))
    say(connection, who, fact(day(7)), now=day(7))
    assert ban(connection, at=day(5)) == 0
    assert not banned(connection)
    assert ban(connection, at=day(9)) == 1
    assert banned(connection)


def test_an_opt_in_between_two_unsubscribes_lifts_the_older_only(connection: Connection) -> None:
    who = add_person(connection)
    ban(connection, at=day(5))
    assert ban(connection, at=day(8), evidence="another mail") == 1
    say(connection, who, fact(day(7)), now=day(9))
    assert banned(connection)


def test_what_is_wrong_is_lifted_by_somebody_with_a_name_and_a_reason(connection: Connection) -> None:
    who = add_person(connection)
    say(connection, who, fact(day(1)), now=day(1))
    ban(connection, "hard_bounce", at=day(5), evidence="outage of 2026-01-25", purpose="all")
    ban(connection, "hard_bounce", at=day(5), evidence="no such user", shop="atlas")
    told = {"channel": "email", "lifted_by": "Ada", "note": "their server's fault", "at": day(6)}
    assert lift_many(connection, "hard_bounce", evidence="outage of 2026-01-25", **told) == 1
    assert lift_many(connection, "hard_bounce", evidence="outage of 2026-01-25", **told) == 0
    assert banned(connection) and not banned(connection, "harbour")
    assert lift_many(connection, "hard_bounce", address_hashes=[ANN, "another"], **told) == 1
    assert not banned(connection) and banned(connection, as_of=day(5))
    columns = (suppressions.c.evidence, suppressions.c.lifted_by, suppressions.c.lifted_note)
    noted = connection.execute(select(*columns).order_by(suppressions.c.suppression_id)).first()
    assert noted == ("outage of 2026-01-25", "Ada", "their server's fault")
    assert ban(connection, "hard_bounce", at=day(5), evidence="no such user", shop="atlas") == 1
    assert banned(connection), "what is reported again after that holds again"


def test_wrong_unsubscribes_of_every_shop_are_lifted_at_every_shop(connection: Connection) -> None:
    who = add_person(connection)
    for shop in SHOPS:
        say(connection, who, fact(day(1)), now=day(1), shop=shop)
    ban(connection, at=day(5), evidence="a scanner")
    say(connection, who, fact(day(6)), now=day(6))
    assert banned(connection, "harbour")
    told = {"channel": "email", "lifted_by": "Ada", "note": "it was a scanner", "at": day(7)}
    assert lift_many(connection, "unsubscribe", evidence="a scanner", **told) == 1
    assert may_write(connection, day(8), "harbour")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "complaint"}, "never lifted"),
        ({"lifted_by": " "}, "with a name"),
        ({"note": ""}, "says why"),
        ({"evidence": None}, "their evidence or their addresses"),
    ],
)
def test_lifting_needs_a_name_a_reason_and_a_choice(
    connection: Connection, changes: dict[str, Any], said: str
) -> None:
    told = {"reason": "manual", "channel": "email", "lifted_by": "Ada", "note": "?", "evidence": "x", "at": BEGIN}
    with pytest.raises(UsageError, match=said):
        lift_many(connection, **(told | changes))


@pytest.mark.parametrize("channel", ["whatsapp", "messenger"])
def test_an_opt_in_lifts_what_the_person_told_this_channel(engine: Engine, config: Config, channel: str) -> None:
    """By the number or the account at this shop; somebody else's, and the same person's mail, stay suppressed."""
    row = {"phone": "+33612345678", "updated_at": day(1)}
    take_unchecked(engine, config, [customer("C1", "ann@example.com", **row), customer("C2", updated_at=day(1))])
    labels = {"whatsapp": ("whatsapp", "+33612345678"), "messenger": ("handle", "atlas:C1")}
    theirs, other = address_hash(SECRET, *labels[channel]), address_hash(SECRET, "handle", "atlas:C2")
    with engine.begin() as connection:
        told = {"evidence": "STOP", "occurred_at": day(2), "recorded_at": day(2)}
        suppress(connection, [theirs, other], "unsubscribe", channel=channel, **told)
        suppress(connection, [ANN], "unsubscribe", channel="email", **told)
    agreed = replace(fact(day(3)), channel=channel)
    take_unchecked(engine, config, [customer("C1", "ann@example.com", **row | {"updated_at": day(4)},
                                             consents=[agreed])], now=day(5))  # fmt: skip
    with engine.begin() as connection:
        held = connection.execute(active_suppressions().order_by(suppressions.c.suppression_id)).all()
    assert [row.address_hash for row in held] == [other, ANN]


def test_a_suppression_outlives_an_erasure(engine: Engine, config: Config) -> None:
    """The address comes back as somebody new, with an old consent; a new one of their own counts."""
    with engine.begin() as connection:
        ban(connection, at=day(5))
        erased = add_person(connection)
        connection.execute(
            customers.update().values(email=None, email_key=None, email_hash=None, erased_at=day(6))
        )
    back = customer("C9", "Ann@example.com", updated_at=day(7), consents=[fact(day(4)), fact(None)])
    take_unchecked(engine, config, [back], now=day(8))
    assert contents(engine, customers, "email_hash") == [(None,), (ANN,)]
    with engine.begin() as connection:
        assert status(connection, day(8)) == "granted" and banned(connection)
        assert connection.scalars(select(consents.c.customer_id).distinct()).all() != [erased]
    take_unchecked(engine, config, [replace(back, updated_at=day(9), consents=[fact(day(9))])], now=day(10))
    with engine.begin() as connection:
        assert may_write(connection, day(10))


# Any history: what is done, a slow reading of the rules, and the two compared.


@dataclass(frozen=True)
class Say:
    """`at`, `row_at`, `expires`: days; None where nobody says."""

    status: str
    basis: str
    shop: str
    topic: str
    at: int | None
    row_at: int | None
    source: str
    evidence: bool
    expires: int | None

    def fact(self) -> ConsentFact:
        return fact(
            None if self.at is None else day(self.at),
            status=self.status,
            basis=self.basis,
            topic=self.topic,
            source=self.source,
            first_hand=self.source == "shopify",
            evidence="x" if self.evidence else None,
            expires_at=None if self.expires is None else day(self.expires),
        )


@dataclass(frozen=True)
class Ask:
    shop: str
    topic: str
    at: int


@dataclass(frozen=True)
class Confirm:
    shop: str
    topic: str
    at: int
    within: int


@dataclass(frozen=True)
class Ban:
    reason: str
    shop: str | None
    at: int
    mail: int

    def options(self) -> dict[str, Any]:
        """Each kind at an hour of its own: no two unsubscribes on different evidence are of the same instant."""
        hours = 1 if self.shop else 3 * self.mail
        return {"at": day(self.at, hours=hours), "shop": self.shop, "evidence": f"{self.shop} {self.mail}"}


@dataclass(frozen=True)
class LiftByHand:
    reason: str


@dataclass(frozen=True)
class ComeBack:
    """The address is erased and comes back as somebody new."""


Step = Say | Ask | Confirm | Ban | LiftByHand | ComeBack

DAYS = (*(1, 2, 3, 4, 5, 6) * 3, 24)  # of the last the records know too early


def history(seed: int) -> list[Step]:
    """Steps as they come. Dense on purpose: hypothesis' own lists seldom have two steps about the same consent."""
    dice = random.Random(seed)
    kinds = dice.choices([_opt_in, _anything, _unsubscribe, _question, _rare], [6, 4, 5, 8, 1], k=14)
    return [kind(dice) for kind in kinds]


def _where(dice: random.Random) -> dict[str, Any]:
    return {"shop": dice.choice(["atlas"] * 3 + ["harbour"]), "topic": dice.choice(["promotions"] * 3 + ["news"])}


def _opt_in(dice: random.Random) -> Step:
    basis = dice.choice(["express", "double_opt_in"])
    known = {"status": "granted", "row_at": None, "source": "shopify", "evidence": True, "expires": None}
    return Say(basis=basis, at=dice.choice(DAYS), **known, **_where(dice))


def _anything(dice: random.Random) -> Step:
    return Say(
        status=dice.choice(["granted", "granted", "withdrawn"]),
        basis=dice.choice(["express", "double_opt_in", "implied_purchase", "soft_opt_in"]),
        at=dice.choice([None, None, *DAYS]),
        row_at=dice.choice([None, *DAYS]),
        source=dice.choice(["shopify", "file"]),
        evidence=dice.random() < 0.7,
        expires=dice.choice([None, None, *DAYS]),
        **_where(dice),
    )


def _unsubscribe(dice: random.Random) -> Step:
    return Ban("unsubscribe", dice.choice([None, None, *SHOPS]), dice.choice(DAYS), dice.randrange(2))


def _question(dice: random.Random) -> Step:
    """Mostly the answer: it may come to a question of any day."""
    if dice.random() < 0.4:
        return Ask(at=dice.choice(DAYS), **_where(dice))
    return Confirm(at=dice.choice(DAYS), within=dice.choice([1, 3, 5]), **_where(dice))


def _rare(dice: random.Random) -> Step:
    reason = dice.choice(["complaint", "hard_bounce", "hard_bounce", "manual"])
    ban = Ban(reason, None, dice.choice(DAYS), 0)
    return dice.choice([ban, LiftByHand(dice.choice(["hard_bounce", "manual"])), ComeBack()])


@dataclass
class Held:
    """An oracle's suppression; `ended`: shops at which an opt-in has ended it."""

    reason: str
    shop: str | None
    at: datetime
    evidence: str
    ended: set[str] = field(default_factory=set)
    ended_by_hand: bool = False

    def at_shop(self, shop: str) -> bool:
        here = self.shop in (None, shop) and not self.ended_by_hand and shop not in self.ended
        return here or self.reason == "complaint"


@dataclass
class Oracle:
    """The rules, read slowly, about the person who has the address now."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    def do(self, step: Step, now: datetime) -> bool | None:
        match step:
            case Say():
                self.say(step, now)
            case Ask():
                self.add(
                    step.shop, step.topic, "pending", day(step.at), "web", day(step.at), basis="double_opt_in"
                )
            case Confirm():
                return self.confirm(step, now)
            case Ban():
                self.ban(step)
            case LiftByHand():
                for each in self.held:
                    each.ended_by_hand |= each.reason == step.reason
            case ComeBack():
                self.facts = []
        return None

    def say(self, step: Say, now: datetime) -> None:
        told = day(step.at) if step.at is not None else None
        row_at = day(step.row_at) if step.row_at is not None else None
        if step.status == "granted":
            at = told or LONG_AGO
        elif told or row_at:
            at = told or row_at
        elif (self.newest(step.shop, step.topic, now) or {}).get("status") == "withdrawn":
            return
        else:
            at = now
        expires = day(step.expires) if step.expires is not None else self.runs_out(step, at)
        expires = expires if step.status == "granted" else None
        words = {"basis": step.basis, "expires": expires}
        is_new = self.add(step.shop, step.topic, step.status, at, step.source, now, **words)
        explicit = step.basis in ("express", "double_opt_in") and step.source == "shopify" and step.evidence
        lasts = expires is None or expires > now
        if is_new and step.status == "granted" and explicit and lasts and told and told <= now:
            self.opt_in(step.shop, told, now)

    def runs_out(self, step: Say, at: datetime) -> datetime | None:
        """Nobody knows the country, so after the shortest: one month."""
        if step.basis != "implied_purchase":
            return None
        for last in (at.day, 30, 29, 28):
            try:
                return at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1, day=min(at.day, last))
            except ValueError:
                continue
        raise AssertionError

    def add(
        self, shop: str, topic: str, status: str, at: datetime, source: str, recorded: datetime, **more: Any
    ) -> bool:
        known = {"shop": shop, "topic": topic, "status": status, "at": at, "source": source}
        if any(all(each[name] == value for name, value in known.items()) for each in self.facts):
            return False
        self.facts.append(known | {"recorded": recorded, "expires": None, "basis": "request"} | more)
        return True

    def about(self, shop: str, topic: str, status: str) -> list[dict[str, Any]]:
        return [
            each for each in self.facts if (each["shop"], each["topic"], each["status"]) == (shop, topic, status)
        ]

    def newest(self, shop: str, topic: str, as_of: datetime) -> dict[str, Any] | None:
        said_no = self.about(shop, topic, "withdrawn")
        no = [each for each in said_no if each["at"] <= as_of or each["recorded"] <= as_of]
        yes = [
            each
            for each in self.about(shop, topic, "granted")
            if each["at"] <= as_of and (each["expires"] is None or each["expires"] > as_of)
        ]
        newest_yes, newest_no = (max(group, key=lambda f: f["at"], default=None) for group in (yes, no))
        if newest_yes and newest_no:
            return newest_yes if newest_yes["at"] > newest_no["at"] else newest_no
        return newest_yes or newest_no

    def bases(self, shop: str, topic: str, newest: dict[str, Any]) -> set[str]:
        """Of grants of the same instant any one may be named."""
        return {each["basis"] for each in self.about(shop, topic, newest["status"]) if each["at"] == newest["at"]}

    def opt_in(self, shop: str, at: datetime, now: datetime) -> None:
        ended = [
            each
            for each in self.held
            if each.reason == "unsubscribe"
            and each.shop in (None, shop)
            and each.at < at
            and shop not in each.ended
        ]
        for each in ended:
            each.ended.add(shop)
        for topic in TOPICS if ended else ():
            last = max(each.at for each in ended)
            if any(each["at"] <= last for each in self.about(shop, topic, "granted")):
                self.add(shop, topic, "withdrawn", last, "suppression", now)

    def confirm(self, step: Confirm, now: datetime) -> bool:
        at = day(step.at)
        asked = [each for each in self.about(step.shop, step.topic, "pending") if each["at"] <= at]
        if not asked:
            return False
        last = max(asked, key=lambda f: f["at"])
        withdrawn = any(each["at"] >= last["at"] for each in self.about(step.shop, step.topic, "withdrawn"))
        unsubscribed = any(
            each.reason == "unsubscribe" and each.at_shop(step.shop) and each.at >= last["at"]
            for each in self.held
        )
        if withdrawn or unsubscribed:
            return False
        if any(each.get("answers") is last for each in self.about(step.shop, step.topic, "granted")):
            return True
        if at - last["at"] > timedelta(days=step.within):
            return False
        self.add(step.shop, step.topic, "granted", at, "web", now, basis="double_opt_in", answers=last)
        if at <= now:
            self.opt_in(step.shop, at, now)
        return True

    def ban(self, step: Ban) -> None:
        new = Held(step.reason, step.shop, **{k: v for k, v in step.options().items() if k != "shop"})
        for old in self.held:
            if (old.reason, old.shop) == (new.reason, new.shop):
                stands = not old.ended and not old.ended_by_hand
                if new.reason == "unsubscribe":
                    stands = stands and (old.evidence == new.evidence or old.at >= new.at)
                    stands = stands or (old.evidence, old.at) == (new.evidence, new.at)
                if stands or new.reason == "complaint":
                    return
        self.held.append(new)


def do(connection: Connection, who: int, step: Step, now: datetime) -> tuple[int, bool | None]:
    """The step through the public functions. Returns who has the address then, and what `confirm` said."""
    match step:
        case Say():
            row_at = day(step.row_at) if step.row_at is not None else None
            record(connection, step.shop, [Said(who, step.fact(), row_at)], now=now, months=MONTHS)
        case Ask():
            words = {"asked_at": day(step.at), "source": "web", "wording": "Yes, write to me", "evidence": "form"}
            ask(connection, who, step.shop, "email", step.topic, **words)
        case Confirm():
            words = {"confirmed_at": day(step.at), "recorded_at": now, "source": "web", "evidence": "link"}
            within = timedelta(days=step.within)
            return who, confirm(connection, who, step.shop, "email", step.topic, within=within, **words)
        case Ban():
            ban(connection, step.reason, recorded_at=now, **{"at": day(0)} | step.options())
        case LiftByHand():
            told = {"channel": "email", "lifted_by": "Ada", "note": "wrong", "at": now}
            lift_many(connection, step.reason, address_hashes=[ANN], **told)
        case ComeBack():
            connection.execute(customers.update().values(email=None, email_key=None, email_hash=None))
            return add_person(connection), None
    return who, None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(0, 2**32).map(history))
def test_any_history_is_what_a_slow_reading_of_the_rules_says(engine: Engine, steps: list[Step]) -> None:
    oracle, now = Oracle(), day(9, hours=12)
    with rolled_back(engine) as connection:
        who = add_person(connection)
        for step in steps:
            now += timedelta(days=1)
            who, confirmed = do(connection, who, step, now)
            assert confirmed == oracle.do(step, now)
            compare(connection, oracle, who, now, now)
        compare(connection, oracle, who, now, day(6), day(30), day(70))
        before = {pair: row.status for pair, row in newest(connection, who, now).items()}
        held = {shop: banned(connection, shop) for shop in SHOPS}
        for shop in SHOPS:
            undated = (fact(None, topic=topic, source="a list") for topic in TOPICS)
            say(connection, who, *undated, now=now, shop=shop)
        after = {pair: row.status for pair, row in newest(connection, who, now).items()}
        assert after == dict.fromkeys(itertools.product(SHOPS, TOPICS), "granted") | before
        assert all(banned(connection, shop) for shop in SHOPS if held[shop]), "what has no date raises nothing"


def newest(connection: Connection, who: int, as_of: datetime) -> dict[tuple[str, str], Any]:
    """What counts at `as_of`, by shop and topic."""
    counting = effective_consent(as_of).subquery()
    rows = connection.execute(select(counting).where(counting.c.customer_id == who))
    return {(row.shop, row.topic): row for row in rows}


def compare(connection: Connection, oracle: Oracle, who: int, now: datetime, *instants: datetime) -> None:
    for shop in {each["shop"] for each in oracle.facts if each["status"] != "withdrawn"}:
        expected = any(each.at_shop(shop) for each in oracle.held)
        assert banned(connection, shop) == banned(connection, shop, now) == expected
    for as_of in instants:
        found = newest(connection, who, as_of)
        for pair in itertools.product(SHOPS, TOPICS):
            row, wanted = found.get(pair), oracle.newest(*pair, as_of)
            if row is None or wanted is None:
                assert row is wanted
                continue
            assert (row.status, row.occurred_at) == (wanted["status"], wanted["at"])
            assert row.status == "withdrawn" or row.basis in oracle.bases(*pair, wanted)
