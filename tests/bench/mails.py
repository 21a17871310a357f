"""What the benchmarks of sending share: a reserved plan, a template of 8 KB, a key, a server that takes mail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Engine, func, select

from lifecycle.clock import Clock
from lifecycle.db.engine import reading
from lifecycle.db.schema import customers, messages
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.links import prepare_links
from lifecycle.messages.records import Recipient
from lifecycle.processes import free_port
from lifecycle.settings import ROOT, Config
from lifecycle.workplace import Workplace, open_workplace
from tests.bench.databases import Database, settle
from tests.ledger.people import NOW, SECRET, add_people, add_plan, numbered

SINK, SOURCE = (
    shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("smtp-sink", "smtp-source")
)
KEY_ENV, DOMAIN, SELECTOR = "TERN_BENCH_DKIM", "atlas.example.com", "bench"
_NAMES = (
    "Ada Lovelace",
    "José García",
    "Zoë Müller",
    "Chen Wei",
    "Françoise Petit",
    "Ola Nordmann",
    "王 小明",
    "",
)


@dataclass(frozen=True)
class Site:
    """A reserved plan. `env` opens its workplace, in any process."""

    env: Mapping[str, str]
    plan_id: int
    count: int

    def place(self) -> Workplace:
        return open_workplace(self.env)


@contextmanager
def reserved(database: Database, port: int, count: int) -> Iterator[Site]:
    """`count` people of example.com, and a plan that sends to all of them over the mail server at `port`."""
    folder = database.folder / f"send_{database.name}_{free_port()}"
    with database.fresh() as engine:
        env = {
            "TERN_CONFIG": str(_config(folder / "config")),
            "TERN_TEMPLATES": str(_templates(folder / "templates")),
            "TERN_DATA": str(folder),
            "TERN_DATABASE_URL": engine.url.render_as_string(hide_password=False),
            "TERN_SECRET": SECRET.decode(),
            "TERN_SMTP_HOST": "127.0.0.1",
            "TERN_SMTP_PORT": str(port),
            "TERN_SMTP_SECURITY": "none",
            "TERN_QUIET_HOURS": "none",
            KEY_ENV: _key(),
        }
        yield Site(env, _reserve(engine, env, count), count)


def clock() -> Clock:
    """Goes on from NOW as time does."""
    began = time.monotonic()
    return lambda: NOW + timedelta(seconds=time.monotonic() - began)


def recipients(engine: Engine, plan_id: int, batch: int) -> list[Recipient]:
    """As the ledger hands them to the composer."""
    names = ("message_id", "plan_id", "what", "customer_id", "channel", "purpose", "shop", "template", "locale")
    query = (
        select(*(messages.c[name] for name in names), customers.c.email.label("address"), customers.c.name)
        .join_from(messages, customers, customers.c.customer_id == messages.c.customer_id)
        .where(messages.c.plan_id == plan_id, messages.c.batch == batch)
        .order_by(messages.c.message_id)
    )
    with reading(engine) as connection:
        return [Recipient(**row) for row in connection.execute(query).mappings()]


def without_key(config: Config) -> Config:
    """The same, but mails are not signed."""
    channels = tuple(each.model_copy(update={"dkim": None}) for each in config.channels_file.channels)
    return replace(config, channels_file=config.channels_file.model_copy(update={"channels": channels}))


def check_all_accepted(site: Site, count: int) -> None:
    """Raises RuntimeError where the ledger does not say that the server took every message."""
    engine = site.place().engine
    with reading(engine) as connection:
        query = select(messages.c.state, func.count()).group_by(messages.c.state)
        found = {state: number for state, number in connection.execute(query)}
    engine.dispose()
    if found != {"accepted": count}:
        raise RuntimeError(f"of {count} messages the ledger has {found}")


@contextmanager
def mail_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Its name and port: smtp-sink of Postfix, in a process of its own; where it is absent, the sandbox's."""
    port = free_port()
    if SINK is not None:
        name = "smtp-sink"
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [SINK, *as_nobody, "-c", f"127.0.0.1:{port}", "1024"]
    else:
        name = "sandbox.mailbox, for there is no smtp-sink (package postfix)"
        options = ["--port", str(port), "--folder", str(folder / "mailbox")]
        command = [sys.executable, "-W", "ignore", "-m", "sandbox.mailbox", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as server:
        try:
            _wait(server, port)
            yield name, port
        finally:
            server.terminate()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the mail server did not come up on port {port}")


def _reserve(engine: Engine, env: Mapping[str, str], count: int) -> int:
    place = open_workplace(env)
    people: list[int] = []
    for number, name in enumerate(_NAMES):
        wanted = (count - len(people)) // (len(_NAMES) - number)
        addresses = numbered(wanted, prefix=f"person{number}")
        people += add_people(engine, addresses, name=name) if wanted else []
    plan_id = add_plan(engine, place.config, people)
    prepare_links(engine, place.config, place.environment, plan_id)
    made = reserve(engine, place.config, plan_id, now=NOW, secret=SECRET)
    if made.reserved != count:
        raise RuntimeError(f"of {count} messages {made.reserved} were reserved: {made.revised}")
    settle(engine)
    place.engine.dispose()
    return plan_id


@cache
def _key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()


def _config(folder: Path) -> Path:
    """The project's, with signatures, without hold-outs, for a plan of any age."""
    shutil.copytree(ROOT / "config", folder)

    def change(name: str, edit: Any) -> None:
        values = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        edit(values)
        (folder / name).write_text(yaml.safe_dump(values), encoding="utf-8")

    def everybody(values: Any) -> None:
        values["global_hold_out"] = 0
        for campaign in values["campaigns"]:
            campaign["hold_out"] = 0

    def signed(values: Any) -> None:
        [channel] = (each for each in values["channels"] if each["name"] == "email")
        channel["dkim"] = {"domain": DOMAIN, "selector": SELECTOR, "key_env": KEY_ENV}

    change("campaigns.yaml", everybody)
    change("channels.yaml", signed)
    return folder


def _templates(folder: Path) -> Path:
    shutil.copytree(ROOT / "templates", folder)
    (folder / "winback" / "en.html").write_text(_page(), encoding="utf-8")
    return folder


def _page() -> str:
    """On the project's layout: about 8 KB with 12 links once its styles stand on the elements."""
    things = (
        f'<li><a href="{{{{ shop.site }}}}/things/{name}">The {name}</a>: {words}</li>' for name, words in _THINGS
    )
    return _FRAME.replace("THINGS", "\n".join(things))


_FRAME = """{% extends "layouts/en.html" %}
{% block subject %}{{ customer.first_name or "Hello" }}, here is what is new{% endblock %}
{% block preheader %}What has changed since your last visit.{% endblock %}
{% block body %}
<h1>{% if customer.first_name %}{{ customer.first_name }}, we{% else %}We{% endif %} have missed you</h1>
<p>Hello {{ customer.name }}, it has been some time since your last order at {{ sender.name }}. A good deal has
changed: new things have arrived, old favourites are back, and this code takes 10% off.</p>
<table role="presentation" class="code"><tbody><tr><td>{{ campaign.variables.code }}</td></tr></tbody></table>
<table role="presentation" class="button"><tbody>
<tr><td><a href="{{ shop.site }}/new">See it all</a></td></tr></tbody></table>
<ul>
THINGS
</ul>
<p>Type the code at the checkout, once, on anything in the shop. If something kept you away, simply reply.</p>
<p>Warm regards, everybody at {{ sender.name }}</p>
{% endblock %}
"""
_THINGS = (
    ("lamp", "light for long evenings, dimmed with one finger"),
    ("kettle", "boils a litre in two minutes and pours without a drop beside the cup"),
    ("blanket", "wool from one valley, woven in the next"),
    ("notebook", "paper that takes ink well, bound so that it lies flat"),
    ("chair", "folds away behind a door and comes out for guests"),
    ("basket", "willow, for bread, for post, for whatever lies about"),
    ("knife", "one for everything, sharpened by hand before it leaves us"),
    ("scarf", "as warm as it is light, in five colours"),
    ("clock", "quiet enough for a bedroom, plain enough for a kitchen"),
    ("apron", "linen, with a pocket where one needs it"),
)
