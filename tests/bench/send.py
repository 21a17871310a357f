"""Sending, beside smtp-source, EmailMessage with dkimpy and smtplib, and one Prefect task for each mail."""

from __future__ import annotations

import json
import os
import pickle
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import dkim

from lifecycle.channels.smtp import SmtpChannel
from lifecycle.clock import Clock
from lifecycle.ledger.drain import drain
from lifecycle.ledger.records import Batch
from lifecycle.ledger.sending import send_batch, wire_dir
from lifecycle.ledger.taking import open_batches
from lifecycle.messages.compose import Composer
from lifecycle.messages.dkim import SIGNED, Signer
from lifecycle.messages.records import Mail, Recipient
from lifecycle.settings import ROOT
from lifecycle.settings.channels import EmailChannel
from lifecycle.settings.mailboxes import OTHER, limits_of
from lifecycle.workplace import Workplace
from tests.bench import mails
from tests.bench.databases import Database
from tests.bench.figures import Comparison, Figure, apart, timed
from tests.bench.mails import DOMAIN, KEY_ENV, SELECTOR, Site
from tests.ledger.people import NOW, SECRET, ScriptedChannel

_BESIDE, _TASKS = 40, 150
"""So many mails are enough of what is slow; the former after each batch of Tern's, so that a machine that is busy
now and then is so for both."""


def measure(database: Database, share: float) -> list[Comparison]:
    """Every figure is of a process of its own; its CPU is that of the sender, not of the mail server."""
    count = round(10_000 * share)
    with mails.mail_server(database.folder) as (server, port):
        with mails.reserved(database, port, count) as site:
            sent, plain = apart(_send, f"Tern: compose, sign, ledger, to {server}", site, _BESIDE)
        with mails.reserved(database, port, count) as site:
            _, (parts, sample) = apart(_parts, site)
        bare = _smtp_source(database.folder, port, sample[0], count)
        tasks = _one_task_each(database.folder, port, sample)
    return [[sent, *parts, *bare, plain, *tasks]]


def measure_large(database: Database, share: float) -> list[Comparison]:
    """How the memory of the sending process grows; on SQLite, which works in that process. Its cache of 64 MB is
    full from some 50,000 mails on."""
    if database.name != "SQLite":
        return []
    figures = []
    for count in (round(n * share) for n in (100_000, 30_000, 10_000)):
        with mails.mail_server(database.folder) as (server, port), mails.reserved(database, port, count) as site:
            figures.append(apart(_send, f"Tern: compose, sign, ledger, to {server}", site, 0)[0])
    return [figures]


def measure_prefect(database: Database, share: float) -> list[Comparison]:
    """What a flow costs around the work of its send tasks."""
    count = round(20_000 * share)
    with mails.mail_server(database.folder) as (_, port), mails.reserved(database, port, count) as site:
        figures = _under_prefect("batches", database.folder, {**site.env, "BENCH_PLAN": str(site.plan_id)})
        mails.check_all_accepted(site, count)
    return [figures]


def _send(what: str, site: Site, beside: int) -> tuple[Figure, Figure]:
    """Batch by batch, as the task does it; and as many mails of each batch once more the obvious way."""
    place, now = site.place(), mails.clock()
    words = "EmailMessage, dkimpy and smtplib, words ready-made, no ledger"
    figure, plain = Figure(what, cpu_seconds=0.0), Figure(words, cpu_seconds=0.0)
    for batch in open_batches(place.engine, now=NOW, plan_id=site.plan_id):
        with _adding(figure, batch.messages):
            send_batch(place, batch, env=site.env, clock=now)
        if beside:
            composer = Composer(
                place.engine, place.config, place.environment, site.plan_id, env=site.env, clock=now
            )
            people = mails.recipients(place.engine, site.plan_id, batch.batch)[:beside]
            _the_obvious_way(plain, site, _mails(composer, people))
    mails.check_all_accepted(site, site.count)
    return figure, plain


def _parts(site: Site) -> tuple[Figure, tuple[list[Figure], list[Mail]]]:
    """The same work taken apart, a batch at a time, and a sample of the mails."""
    place, now = site.place(), mails.clock()
    settings = place.config.channel("email")
    assert isinstance(settings, EmailChannel)
    signer = Signer(DOMAIN, SELECTOR, site.env[KEY_ENV].encode())
    unsigned = mails.without_key(place.config)
    parts = [Figure(f"of it {what}", cpu_seconds=0.0) for what in ("composing", "signing", "ledger", "SMTP")]
    composing, signing, ledger, wire = parts
    sample: list[Mail] = []
    for batch in open_batches(place.engine, now=NOW, plan_id=site.plan_id):
        people = mails.recipients(place.engine, site.plan_id, batch.batch)
        with _adding(composing, batch.messages):
            composer = Composer(place.engine, unsigned, place.environment, site.plan_id, env=site.env, clock=now)
            made = _mails(composer, people)
        with _adding(signing, batch.messages):
            made = [replace(mail, content=signer.sign(mail.content) + mail.content) for mail in made]
        with _adding(ledger, batch.messages):
            _only_book(place, batch, made, now)
        with _adding(wire, batch.messages), _channel(settings) as channel:
            list(channel.send(made, lambda mail: None))
        sample += made[: _TASKS - len(sample)]
    mails.check_all_accepted(site, site.count)
    return Figure(""), (parts, sample)


def _mails(composer: Composer, people: Sequence[Recipient]) -> list[Mail]:
    return [mail for each in people if isinstance(mail := composer.compose(each), Mail)]


def _channel(settings: EmailChannel) -> SmtpChannel:
    assert settings.smtp is not None
    return SmtpChannel(settings.smtp, per_connection=limits_of(settings, OTHER).per_connection)


def _only_book(place: Workplace, batch: Batch, made: Sequence[Mail], now: Clock) -> None:
    """Mails that are there already, to a channel that takes everything at once."""
    by_message = {mail.send_id: mail for mail in made}
    drain(
        place.engine,
        batch,
        compose=lambda recipient: by_message[recipient.message_id],
        ways=ScriptedChannel(),
        config=place.config,
        secret=SECRET,
        clock=now,
        wire_dir=wire_dir(place.environment),
    )


@contextmanager
def _adding(figure: Figure, rows: int) -> Iterator[None]:
    with timed("", cpu=True) as once:
        yield
    assert figure.cpu_seconds is not None and once.cpu_seconds is not None
    figure.rows += rows
    figure.seconds += once.seconds
    figure.cpu_seconds += once.cpu_seconds


def _smtp_source(folder: Path, port: int, mail: Mail, count: int) -> list[Figure]:
    """Postfix' own generator of load, in C: one mail again and again, and nothing else."""
    if mails.SOURCE is None:
        print("without smtp-source, which is not installed here (package postfix)", file=sys.stderr)
        return []
    path = folder / "mail.eml"
    path.write_bytes(mail.content.replace(b"\r\n", b"\n"))
    figures = []
    for words, options in (("one connection", ["-d"]), ("a connection each", [])):
        envelope = ["-f", mail.envelope_from, "-t", mail.envelope_to]
        command = [mails.SOURCE, *options, "-m", str(count), *envelope, "-F", str(path), f"127.0.0.1:{port}"]
        began = time.perf_counter()
        with subprocess.Popen(command) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"smtp-source ended with exit code {process.returncode}")
        seconds, cpu_seconds = time.perf_counter() - began, used.ru_utime + used.ru_stime
        figures.append(Figure(f"smtp-source, one mail again and again, {words}", count, seconds, cpu_seconds))
    return figures


def _the_obvious_way(figure: Figure, site: Site, sample: Sequence[Mail]) -> None:
    """The same words, given ready-made, so that rendering costs it nothing; and nothing is remembered."""
    words, key, port = [_words(mail) for mail in sample], site.env[KEY_ENV], int(site.env["TERN_SMTP_PORT"])
    with _adding(figure, len(sample)), smtplib.SMTP("127.0.0.1", port) as peer:
        for mail, (headers, text, page) in zip(sample, words, strict=True):
            message = EmailMessage(policy=policy.SMTP)
            for name, value in headers:
                message[name] = value
            message.set_content(text)
            message.add_alternative(page, subtype="html")
            content = message.as_bytes()
            signature = dkim.sign(
                content,
                SELECTOR.encode(),
                DOMAIN.encode(),
                key.encode(),
                canonicalize=(b"relaxed", b"relaxed"),
                include_headers=[name.lower().encode() for name, _ in headers if name.lower() in SIGNED],
            )
            peer.sendmail(mail.envelope_from, mail.envelope_to, signature + content)


def _words(mail: Mail) -> tuple[list[tuple[str, str]], str, str]:
    """Headers, text and page."""
    parsed = message_from_bytes(mail.content, policy=policy.default)
    text, page = (parsed.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None and page is not None
    given = ("dkim-signature", "mime-version", "content-type")
    headers = [(name, str(value)) for name, value in parsed.items() if name.lower() not in given]
    return headers, text.get_content(), page.get_content()


def _one_task_each(folder: Path, port: int, sample: Sequence[Mail]) -> list[Figure]:
    path = folder / "sample.pickle"
    path.write_bytes(pickle.dumps(list(sample)))
    return _under_prefect("each", folder, {"BENCH_MAILS": str(path), "BENCH_PORT": str(port)})


def _under_prefect(what: str, folder: Path, env: Mapping[str, str]) -> list[Figure]:
    """What `under_prefect` measures, with a Prefect server of its own that nobody has used."""
    home = folder / f"prefect_{what}_{time.monotonic_ns()}"
    home.mkdir()
    own = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.under_prefect", what]
    with (home / "log").open("wb") as log:
        environment = {**os.environ, **own, **env}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError(f"the flow failed; the end of its log:\n{(home / 'log').read_text()[-2000:]}")
    return [Figure(**values) for values in json.loads(done.stdout.splitlines()[-1])]
