"""The whole way of a mail against parties that are not ours.

Postfix carries it; dkimpy, the standard library's parser and SpamAssassin judge what arrives; what comes back
finds its message.
"""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lifecycle.addresses import address_hash
from lifecycle.channels import Accepted, Refused
from lifecycle.channels.smtp import SmtpChannel
from lifecycle.clock import utc_now
from lifecycle.db.engine import open_database, reading
from lifecycle.db.schema import message_events, messages, suppressions, unmatched_reports, verdicts
from lifecycle.ledger.audit import audit
from lifecycle.ledger.drain import BatchResult, open_batches, total
from lifecycle.ledger.reserve import reserve
from lifecycle.ledger.sending import send_batch
from lifecycle.messages.links import prepare_links
from lifecycle.messages.records import Mail
from lifecycle.settings import ROOT, Config, Environment, load_config
from lifecycle.settings.channels import EmailChannel
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.workplace import Workplace
from sandbox.mailbox import Kept, MailboxServer
from sandbox.postfix import Postfix, relay
from tests.ledger.conftest import without_hold_out
from tests.ledger.people import SECRET, add_people, add_plan, numbered
from tests.messages.test_dkim import DOMAIN, KEY, SELECTOR, pem, verifies
from tests.tracking.feedback import rows, serving
from tests.tracking.test_postfix import _postfix, wait_for  # noqa: F401 (a fixture that skips all of this)

CODE = "回来🎁10"
CHINESE = """\
{% extends "layouts/mail.html" %}
{% block subject %}{{ customer.name }}，好久不见，凭优惠码 {{ campaign.variables.code }} 再享九折优惠{% endblock %}
{% block body %}<p>您好，{{ customer.first_name }}！</p>
<p>自您上次光临以来，我们上架了许多新品，很受欢迎的商品也已重新到货，诚邀您前来选购。</p>
<p>付款时输入优惠码 {{ campaign.variables.code }}，全店商品一律九折，限用一次。
<a href="{{ shop.site }}/new">查看新品</a></p>
{% endblock %}
{% block footer %}<p>不想再收到邮件？<a href="{{ unsubscribe_url }}">退订</a></p>{% endblock %}
"""
EMPTY = """<html><head><title>{% block subject %}Hello{% endblock %}</title></head>
<body>{% if customer.name == "nobody" %}<p>Words</p>{% endif %}</body></html>
"""

People = Sequence[tuple[str, str | None]]
ENGLISH: People = [(each, "Ada Lovelace") for each in numbered(25)]
FRENCH: People = [(f"zoe.{each}@gmail.com", "Zoé🎉 Müller") for each in range(12)] + [("anon@orange.fr", None)]
MANDARIN: People = [(f"{each}@qq.com", "王小明") for each in range(10_001, 10_013)]
GONE: People = [(each, "Ada Lovelace") for each in numbered(3, "gone.ada")]
SUBJECTS = {
    **{address: "Ada, it has been a while" for address, _ in (*ENGLISH, *GONE)},
    **{address: "Zoé🎉, cela fait longtemps…" for address, _ in FRENCH},
    "anon@orange.fr": "Cela fait longtemps…",
    **{address: f"王小明，好久不见，凭优惠码 {CODE} 再享九折优惠" for address, _ in MANDARIN},
}


@dataclass(frozen=True)
class MailPath:
    """Our ledger, a Postfix as relay, the world behind it, and the way back by LMTP."""

    place: Workplace
    env: Mapping[str, str]
    postfix: Postfix
    world: MailboxServer

    def send(self, people: People, locale: str, config: Config | None = None) -> tuple[BatchResult, list[Any]]:
        """A campaign of its own. Returns what came of it, and its rows of the ledger, with verdicts, in order."""
        place = replace(self.place, config=config or self.place.config)
        engine, now = place.engine, utc_now()
        people_ids: list[int] = []
        for name, same in groupby(people, key=lambda each: each[1]):
            people_ids += add_people(engine, [address for address, _ in same], name=name)
        plan_id = add_plan(
            engine,
            place.config,
            people_ids,
            locale=locale,
            occurrence=f"{date(2026, 1, 1) + timedelta(people_ids[0])}",
            created_at=now,
        )
        prepare_links(engine, place.config, place.environment, plan_id)
        reserve(engine, place.config, plan_id, now=now, secret=SECRET)
        batches = open_batches(engine, now=utc_now(), plan_id=plan_id)
        result = total([send_batch(place, batch, env=self.env) for batch in batches])
        query = (
            select(messages, verdicts.c.revised_verdict)
            .join_from(messages, verdicts, messages.c.plan_id == verdicts.c.plan_id)
            .where(messages.c.plan_id == plan_id, messages.c.customer_id == verdicts.c.customer_id)
            .order_by(messages.c.customer_id)
        )
        with reading(engine) as connection:
            return result, list(connection.execute(query))

    def arrived(self, address: str) -> list[Kept]:
        return [mail for mail in self.world.mailbox.mails() if mail.envelope_to == address]

    def wait_for(self, *addresses: str) -> list[Kept]:
        """The one mail that arrived at each of them, in order."""
        wait_for(lambda: all(self.arrived(each) for each in addresses), self.postfix)
        found = [self.arrived(each) for each in addresses]
        assert all(len(each) == 1 for each in found)
        return [mail for each in found for mail in each]


@dataclass(frozen=True)
class Campaign:
    """seconds: from the return of the last batch until every dead address was suppressed."""

    result: BatchResult
    seconds: float
    mails: Sequence[Kept]


@pytest.fixture(scope="module")
def path(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailPath]:
    folder = tmp_path_factory.mktemp("path")
    templates = Path(shutil.copytree(ROOT / "templates", folder / "templates"))
    (templates / "winback" / "zh.html").write_text(CHINESE, encoding="utf-8")
    (templates / "winback" / "nl.html").write_text(EMPTY, encoding="utf-8")
    shutil.copy(_sqlite_template, folder / "tern.db")
    environment = Environment(ROOT / "config", templates, folder, f"sqlite:///{folder / 'tern.db'}", SECRET)
    engine = open_database(environment.database_url)
    desk = Desk(engine, environment, configured(25))
    with (
        MailboxServer(folder / "world") as world,
        serving(desk) as lmtp_port,
        relay(world_port=world.port, lmtp_port=lmtp_port) as postfix,
    ):
        place = Workplace(environment, configured(postfix.port), engine)
        yield MailPath(place, {"TERN_DKIM_KEY": pem(KEY).decode()}, postfix, world)
    engine.dispose()


@pytest.fixture(scope="module")
def campaign(path: MailPath) -> Campaign:
    """In three languages, to four mailbox providers; three addresses do not exist."""
    result = total([path.send(people, locale)[0] for people, locale in [
        (FRENCH, "fr"), (MANDARIN, "zh"), ([*ENGLISH, *GONE], "en")
    ]])  # fmt: skip
    dead = {address_hash(SECRET, "email", address) for address, _ in GONE}
    seconds = wait_for(
        lambda: dead <= {each.address_hash for each in rows(path.place.engine, suppressions)}, path.postfix
    )
    alive = [address for address, _ in (*ENGLISH, *FRENCH, *MANDARIN)]
    return Campaign(result, seconds, path.wait_for(*alive))


def configured(relay_port: int, *, code: str = CODE, sender: str = "Atlas") -> Config:
    """The project's own, with our relay, a DKIM key and the campaign's words."""
    wanted = {
        "TERN_SMTP_HOST": "127.0.0.1",
        "TERN_SMTP_PORT": str(relay_port),
        "TERN_SMTP_SECURITY": "none",
        "TERN_BOUNCE_DOMAIN": "bounce.test",
        "TERN_TRACKING_URL": "https://t.atlas.example.com",
        "TERN_QUIET_HOURS": "none",
    }
    config = without_hold_out(load_config(ROOT / "config", env=wanted))
    channels = config.channels_file.model_dump(mode="json")
    channels["channels"][0]["dkim"] = {"domain": DOMAIN, "selector": SELECTOR, "key_env": "TERN_DKIM_KEY"}
    campaigns = config.campaigns_file.model_dump()
    for each in campaigns["campaigns"]:
        each["variables"] = {"code": code}
    shops = config.shops_file.model_dump()
    for each in shops["shops"]:
        each["sender"] |= {"name": sender, "address": f"news@{DOMAIN}"}
    return replace(
        config,
        channels_file=type(config.channels_file).model_validate(channels),
        campaigns_file=type(config.campaigns_file).model_validate(campaigns),
        shops_file=type(config.shops_file).model_validate(shops),
    )


def own_head(mail: Kept) -> str:
    """The headers that we wrote, without those that Postfix put in front."""
    return mail.content[mail.content.index(b"DKIM-Signature:") :].partition(b"\r\n\r\n")[0].decode("ascii")


def fields(mail: Kept) -> dict[str, str]:
    """Ours, still folded."""
    found = [each.split(": ", 1) for each in re.split(r"\r\n(?![ \t])", own_head(mail))]
    assert len({name for name, _ in found}) == len(found)
    return {name: value for name, value in found}


def test_every_mail_arrives_once_through_postfix(campaign: Campaign, path: MailPath) -> None:
    sent = len(ENGLISH) + len(FRENCH) + len(MANDARIN)
    assert (campaign.result.accepted, campaign.result.sentence()) == (sent + 3, f"{sent + 3} accepted")
    arrived = [mail.envelope_to for mail in path.world.mailbox.mails() if mail.envelope_to in SUBJECTS]
    assert sorted(arrived) == sorted(SUBJECTS.keys() - dict(GONE).keys())
    assert len({mail.message["Message-ID"] for mail in campaign.mails}) == sent
    assert len({mail.envelope_from for mail in campaign.mails}) == sent
    for mail in campaign.mails:
        assert mail.content.startswith(b"Received: from ")
        assert mail.envelope_to.isascii() and re.fullmatch(
            r"b\+[A-Za-z0-9_-]{30}@bounce\.test", mail.envelope_from
        )
        assert mail.message["To"] == mail.envelope_to
    with reading(path.place.engine) as connection:
        query = select(messages.c.provider_id).where(messages.c.state == "accepted")
        known = set(connection.execute(query).scalars())
    assert {mail.message["Message-ID"] for mail in campaign.mails} <= known


def test_signatures_hold_after_postfix_had_the_mail_in_its_hands(campaign: Campaign) -> None:
    for mail in campaign.mails:
        assert verifies(mail.content)
        signed = re.sub(r"\s", "", re.search(r"\bh=([^;]*);", fields(mail)["DKIM-Signature"])[1])  # type: ignore
        assert {"from", "list-unsubscribe", "list-unsubscribe-post"} <= set(signed.lower().split(":"))
        assert f"d={DOMAIN};" in fields(mail)["DKIM-Signature"]


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (b"/u/", b"/u/x"),
        (b"List-Unsubscribe: [^\r]*\r\n [^\r]*\r\n", b""),
        (b"=One-Click", b"=One-Tap"),
        (b"List-Unsubscribe-Post: [^\r]*\r\n", b""),
        (b"Subject: ", b"Subject: Re: "),
        (b"base64\r\n\r\n", b"base64\r\n\r\nIA=="),
        (b"^", b"From: Eve <eve@example.com>\r\n"),
    ],
)
def test_signature_fails_where_anything_that_counts_was_changed(
    campaign: Campaign, found: bytes, instead: bytes
) -> None:
    content = campaign.mails[0].content
    changed = re.sub(found, instead, content, count=1)
    assert changed != content
    assert verifies(content) and not verifies(changed)


def test_standard_library_reads_them_without_a_defect(campaign: Campaign) -> None:
    for mail in campaign.mails:
        message = email.message_from_bytes(mail.content, policy=email.policy.default)
        assert [part.defects for part in message.walk()] == [[], [], []]
        assert [defect for _, value in message.items() for defect in value.defects] == []
        assert message.get_content_type() == "multipart/alternative"
        kinds = [(part.get_content_type(), part["Content-Transfer-Encoding"]) for part in message.iter_parts()]
        assert kinds == [("text/plain", "base64"), ("text/html", "base64")]
        assert message["Subject"] == SUBJECTS[mail.envelope_to]
        text, page = (part.get_content() for part in message.iter_parts())
        assert CODE in text and CODE in page


def test_lines_are_as_long_as_the_standards_allow(campaign: Campaign) -> None:
    assert any("=?utf-8?" in own_head(mail) for mail in campaign.mails)
    for mail in campaign.mails:
        assert mail.content.isascii() and b"\n" not in mail.content.replace(b"\r\n", b"")
        assert max(map(len, mail.content.split(b"\r\n"))) <= 998
        assert all(len(word) <= 75 for word in re.findall(r"=\?\S*?\?[bqBQ]\?.*?\?=", own_head(mail)))
        for name, value in fields(mail).items():
            lines = f"{name}: {value}".split("\r\n")
            if name == "List-Unsubscribe":
                assert all(re.fullmatch(r"(List-Unsubscribe:)? <[^<>\s]+>,?", line) for line in lines)
            else:
                assert max(map(len, lines)) <= 78, lines


def test_what_bounces_is_suppressed_in_seconds(
    campaign: Campaign, path: MailPath, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(
            f"\nfrom send_batch's return to the last suppression, through a real Postfix: {campaign.seconds:.2f} s"
        )
    assert campaign.seconds < 5
    engine = path.place.engine
    dead = {address_hash(SECRET, "email", address) for address, _ in GONE}
    query = select(messages, message_events.c.detail, message_events.c.kind).join(
        message_events, message_events.c.message_id == messages.c.message_id, isouter=True
    )
    with reading(engine) as connection:
        found = connection.execute(query.where(messages.c.address_hash.in_(dead))).all()
    assert [(row.state, row.kind) for row in found] == [("accepted", "bounced")] * 3
    assert {(row.detail["class"], row.detail["status"]) for row in found} == {("hard", "5.1.1")}
    bans = [ban for ban in rows(engine, suppressions) if ban.address_hash in dead]
    assert [(ban.reason, ban.purpose) for ban in bans] == [("hard_bounce", "all")] * 3
    assert {ban.evidence for ban in bans} == {f"message {row.message_id}: 5.1.1" for row in found}
    assert len(rows(engine, suppressions)) == 3 and rows(engine, unmatched_reports) == []
    assert [
        each for each in audit(engine, data_dir=path.place.environment.data_dir, now=utc_now()) if not each.passed
    ] == []


SPAM = b"""\
From: Eve <eve@example.com>
Subject: The test string that every SpamAssassin knows

XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X
"""


@pytest.mark.skipif(
    shutil.which("spamassassin") is None, reason="SpamAssassin is not installed: apt-get install spamassassin"
)
def test_spamassassin_takes_none_for_spam(
    campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = {mail.envelope_to: mail for mail in campaign.mails}
    files = []
    for name, (address, _) in {"en": ENGLISH[0], "fr": FRENCH[0], "zh": MANDARIN[0]}.items():
        files.append(tmp_path / f"{name}.eml")
        files[-1].write_bytes(samples[address].content)
    files.append(tmp_path / "spam.eml")
    files[-1].write_bytes(SPAM)
    judged = subprocess.run(
        [
            "spamassassin",
            "--local",
            "--test-mode",
            "--nocreate-prefs",
            "--cf=score ALL_TRUSTED 0",
            *map(str, files),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C"},
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout.decode(errors="replace")
    found = re.findall(r"^X-Spam-Status: \w+, score=(-?[\d.]+) .*?tests=(.*?)\sautolearn", judged, re.M | re.S)
    assert len(found) == len(files), judged
    with capsys.disabled():
        print()
        for file, (score, rules) in zip(files, found, strict=True):
            print(f"SpamAssassin, local rules, {file.stem}: {score} of 5 ({''.join(rules.split())})")
    *scores, of_spam = [float(score) for score, _ in found]
    assert max(scores) < 5 < of_spam


CRLF = "\r\nBcc: eve@example.com"


def test_line_break_in_a_name_never_becomes_a_header(path: MailPath) -> None:
    """Where the whole name stands in the subject there is no mail; where the first word does, that is all."""
    result, (row,) = path.send([("breaker.1@example.com", f"Zoé{CRLF}")], "zh")
    assert (row.state, row.revised_verdict, result.revised) == ("refused", "content", 1)
    assert "line break" in row.reason and "eve" not in row.reason
    result, _ = path.send(
        [("breaker.2@example.com", f"Zoé{CRLF}\r\n\r\nBody"), ("breaker.3@example.com", "Z\0é")], "en"
    )
    assert (result.accepted, result.revised) == (1, 1)
    [mail] = path.wait_for("breaker.2@example.com")
    assert mail.message["Subject"] == "Zoé, it has been a while"
    nobody_else_was_written_to(path, mail)


def test_line_break_in_a_campaigns_words_never_becomes_a_header(path: MailPath) -> None:
    config = configured(path.postfix.port, code=f"BACK10{CRLF}")
    result, (row,) = path.send([("words.1@example.com", "Ada")], "zh", config)
    assert (row.state, row.revised_verdict, result.revised) == ("refused", "content", 1)
    path.send([("words.2@example.com", "Ada")], "en", config)
    [mail] = path.wait_for("words.2@example.com")
    text, _ = (part.get_content() for part in mail.message.iter_parts())
    assert "Bcc: eve@example.com" in text
    nobody_else_was_written_to(path, mail)


def test_line_break_in_the_senders_name_stops_every_mail(path: MailPath) -> None:
    config = configured(path.postfix.port, sender=f"Atlas{CRLF}")
    result, found = path.send([("sender.1@example.com", "Ada"), ("sender.2@example.com", "Ada")], "en", config)
    assert [(row.state, row.revised_verdict) for row in found] == [("refused", "content")] * 2
    assert result.reasons == {"content: From has a line break or a control character": 2}


def nobody_else_was_written_to(path: MailPath, mail: Kept) -> None:
    assert list(fields(mail)) == [
        "DKIM-Signature", "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "List-Unsubscribe",
        "List-Unsubscribe-Post", "List-ID", "Feedback-ID", "X-Send-ID", "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert verifies(mail.content)
    assert path.arrived("eve@example.com") == []


def test_address_that_only_smtputf8_could_carry_gets_a_verdict_and_no_mail(path: MailPath) -> None:
    _, found = path.send([("jürgen@example.com", "Jürgen"), ("utf8.1@example.com", "Ada")], "en")
    path.wait_for("utf8.1@example.com")
    states = {row.customer_id: (row.state, row.revised_verdict) for row in found}
    assert list(states.values()) == [("refused", "content"), ("accepted", None)]
    assert not any("rgen@" in mail.envelope_to for mail in path.world.mailbox.mails())


def test_international_domain_is_written_to_in_its_ascii_form(path: MailPath) -> None:
    _, (row,) = path.send([("Zoe.Muller@exämple.de", "Zoé")], "en")
    [mail] = path.wait_for("Zoe.Muller@xn--exmple-cua.de")
    assert (row.state, mail.message["To"]) == ("accepted", "Zoe.Muller@xn--exmple-cua.de")
    assert verifies(mail.content)


def test_template_that_renders_empty_gets_a_verdict_and_no_mail(path: MailPath) -> None:
    _, found = path.send([("empty.1@example.com", "Ada"), ("empty.2@example.com", "nobody")], "nl")
    assert [(row.state, row.revised_verdict) for row in found] == [("refused", "content"), ("accepted", None)]
    assert found[0].reason == "content: the mail has no words"
    path.wait_for("empty.2@example.com")
    assert path.arrived("empty.1@example.com") == []


def test_mail_that_the_relay_finds_too_large_is_refused_and_the_address_left_alone(path: MailPath) -> None:
    config = configured(path.postfix.port, code="Ganz viel " * 400_000)
    before = len(rows(path.place.engine, suppressions))
    result, (row,) = path.send([("large@example.com", "Ada")], "en", config)
    assert (row.state, row.refusal, result.refused) == ("refused", "message", 1)
    assert "larger than the 10,240,000 bytes that the server takes" in row.reason
    assert path.arrived("large@example.com") == []
    assert len(rows(path.place.engine, suppressions)) == before
    events = [each for each in rows(path.place.engine, message_events) if each.message_id == row.message_id]
    assert events == []


def test_too_large_is_about_the_content(path: MailPath) -> None:
    settings = path.place.config.channel("email")
    assert isinstance(settings, EmailChannel) and settings.smtp
    begun: list[Any] = []
    bodies = (b"x" * 70 + b"\r\n") * 150_000, b"x\r\n"
    mails = [Mail(number, f"<{number}@x>", "b@bounce.test", "kind@example.com", b"Subject: x\r\n\r\n" + body)
             for number, body in enumerate(bodies)]  # fmt: skip
    with SmtpChannel(settings.smtp) as channel:
        (_, refused), (_, accepted) = channel.send(mails, begun.append)
    assert isinstance(refused, Refused) and isinstance(accepted, Accepted)
    assert (refused.kind, refused.scope, refused.permanent) == ("content", "message", True)
    assert begun == [mails[1]]
