"""What docs/sending.md and the comments of config/channels.yaml show is sound, and complete."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lifecycle.channels.opening import OpenWays, open_account, open_channel
from lifecycle.customers import mailboxes as looked_up
from lifecycle.db.engine import open_engine
from lifecycle.ledger import breakers, drain, lanes, reconcile, sending
from lifecycle.ledger.breakers import Counts, why_stop
from lifecycle.messages.dkim import MIN_BITS
from lifecycle.messages.notes import EXTRAS, load_note
from lifecycle.messages.records import Recipient
from lifecycle.messages.templates import SAMPLE_CUSTOMERS, sample_values
from lifecycle.planning import fallback
from lifecycle.settings import ROOT, Config, Environment, load_config
from lifecycle.settings import channels as settings
from lifecycle.settings.channels import Bounces, ChannelsFile, EmailChannel, Way
from lifecycle.settings.mailboxes import OTHER, limits_of, mailboxes
from lifecycle.settings.models import Section
from lifecycle.tracking.feedback.webhooks import Webhooks
from sandbox import postfix
from tests.cli.conftest import Tern, home, tern

__all__ = ["home", "tern"]

DOCS = (ROOT / "docs" / "sending.md").read_text()
WORDS = " ".join(DOCS.split())
BLOCKS: list[dict[str, Any]] = [
    yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
]
CONFIGURATION = [block for block in BLOCKS if "text" not in block]
NOTES = [block for block in BLOCKS if "text" in block]
LEAST: dict[str, Any] = {
    "tracking": {"base_url": "https://t.example.com"},
    "channels": [
        {"name": "email", "kind": "email", "smtp": {"host": "h", "port": 25}, "bounce_domain": "b.example.com"}
    ],
}


class AnySecret(dict[str, str]):
    """Whatever is asked for is set."""

    def __missing__(self, name: str) -> str:
        return "id:secret"

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def shown() -> ChannelsFile:
    """All its YAML as one file."""
    whole: dict[str, Any] = {"channels": [], "bounces": {}}
    for block in CONFIGURATION:
        whole["channels"] += block.get("channels", [])
        whole["bounces"] |= block.get("bounces", {})
        whole |= {name: block[name] for name in ("tracking", "webhooks") if name in block}
    return ChannelsFile.model_validate(whole)


def table(header: str) -> list[list[str]]:
    """The rows of the table that begins so, their cells without marks."""
    found = DOCS.partition(header)[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in found]


@pytest.mark.parametrize("block", CONFIGURATION, ids=lambda block: "-".join(block))
def test_each_block_is_sound(block: dict[str, Any]) -> None:
    ChannelsFile.model_validate({**LEAST, **block})


def test_every_kind_of_channel_and_service_has_an_example_that_opens() -> None:
    channels = shown().channels
    kinds = {
        kind
        for each in _models()
        if issubclass(each, Way)
        for kind in get_args(each.model_fields["kind"].annotation)
    }
    assert len(kinds) == 9 and kinds == {channel.kind for channel in channels}
    assert len({channel.name for channel in channels}) == len(channels)
    services = {each.api.service for each in _accounts(channels) if each.api}
    assert services == {"sendgrid", "mailgun", "ses", "postmark"}
    for channel in channels:
        if isinstance(channel, EmailChannel):
            for account in (channel.main, *channel.accounts):
                open_account(channel, account, AnySecret())
        else:
            open_channel(channel, AnySecret())


def test_the_first_account_that_fits_sends() -> None:
    email = next(channel for channel in shown().channels if isinstance(channel, EmailChannel))
    found = {
        OpenWays(email, AnySecret()).way(_recipient(shop, locale, purpose))[0]
        for shop, locale, purpose in (
            ("atlas", "fr", "transactional"),
            ("harbour", "fr", "marketing"),
            ("harbour", "en", "marketing"),
        )
    }
    assert found == {"receipts", "harbour_in_french", "main"}


def test_it_names_every_setting() -> None:
    names = {name for model in _models() for name in model.model_fields}
    assert len(names) > 70
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", DOCS)] == []


def test_its_note_can_be_sent(config: Config, tmp_path: Path) -> None:
    (note,) = re.findall(r"^```yaml\n(title: .*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    (tmp_path / "winback").mkdir()
    (tmp_path / "winback" / "en.note.yaml").write_text(note)
    campaign, shop = config.campaign("winback"), config.shop("atlas")
    values = sample_values(campaign, shop, "en", SAMPLE_CUSTOMERS[0])
    rendered = load_note(tmp_path, "winback", "en").render(values)
    assert rendered.text and rendered.template == "winback_offer" and len(rendered.parameters) == 2


@pytest.mark.parametrize("kind", EXTRAS)
def test_the_extras_of_a_note_are_known(kind: str) -> None:
    (cell,) = re.findall(rf"^\| `{kind}` \| ([^|]+) \|$", DOCS.partition("| kind | `extras` |")[2], re.MULTILINE)
    names = re.findall(r"`(\w+)`", cell)
    assert names and all(EXTRAS[kind].fullmatch(name) for name in names)


def test_every_command_exists_with_its_options(tern: Tern) -> None:
    lines = re.findall(r"^\$ tern (.*)$", DOCS, re.MULTILINE)
    assert len(lines) >= 5
    spoken = re.findall(r"`tern ([a-z-]+)[ `]", DOCS)
    for name in {*spoken, *(line.split()[0] for line in lines)}:
        result = tern(name, "--help")
        assert result.code == 0, name
        for line in (each for each in lines if each.split()[0] == name):
            wanted = [word for word in shlex.split(line) if word.startswith("--")]
            assert all(word in result.out for word in wanted), line
    undoing = tern("undo-suppressions", "--help").out
    assert "--evidence" in undoing


def test_what_each_mailbox_provider_gets() -> None:
    email = EmailChannel.model_validate(LEAST["channels"][0])
    rows = table("| provider | connections at a time |")
    for name, *cells in rows:
        limits = limits_of(email, "naver" if name == "any other in the list" else name)
        rate = f"{limits.per_second:,.0f}" if limits.per_second else "no limit"
        assert cells == [f"{limits.connections:,}", f"{limits.per_connection:,}", rate], name
    plain = limits_of(email, "naver")
    special = {name for name in (*mailboxes().providers, OTHER) if limits_of(email, name) != plain}
    assert special == {row[0] for row in rows[:-2]} | {OTHER}


@pytest.mark.parametrize("row", table("| of so many messages |"), ids=lambda row: row[0])
def test_how_many_stop_a_lane(row: list[str]) -> None:
    sent, bounces, complaints = (int(cell.replace(",", "")) for cell in row)
    shares = breakers.MAX_BOUNCE_SHARE, breakers.MAX_COMPLAINT_SHARE
    assert [bool(why_stop(Counts(sent, bounced=each), *shares)) for each in (bounces - 1, bounces)] == [
        False,
        True,
    ]
    told = [bool(why_stop(Counts(sent, complained=each), *shares)) for each in (complaints - 1, complaints)]
    assert told == [False, True]


def test_its_numbers_are_those_of_the_code() -> None:
    way, bounces = Way.model_fields, Bounces()
    email = EmailChannel.model_validate(LEAST["channels"][0])
    for sentence in (
        f"chunks of at most {drain.CHUNK}.",
        f"the account rests for {drain.REST_SECONDS} seconds",
        f"the lane rests for {lanes.RATE_REST.total_seconds() / 60:.0f} minutes",
        f"the lane rests for {lanes.POLICY_REST.total_seconds() / 3600:.0f} hour, doubled",
        f"at least {breakers.STORM_SHARE:.0%} of at least {breakers.STORM_MESSAGES} messages bounced",
        f"of at least {breakers.MIN_MESSAGES} messages",
        f"an error of {breakers.CERTAINTY:.0%}",
        f"`max_bounce_share` ({breakers.MAX_BOUNCE_SHARE:.0%})",
        f"`max_complaint_share` ({breakers.MAX_COMPLAINT_SHARE:.1%})",
        f"Counted for {breakers.WINDOW.days} days",
        f"the answer kept for {looked_up.KEPT_FOR.days} days",
        f"`retry_minutes` ({way['retry_minutes'].default})",
        f"`max_attempts` ({way['max_attempts'].default})",
        f"`lease_seconds` ({way['lease_seconds'].default})",
        f"`expire_hours` ({way['expire_hours'].default}, which is also the most)",
        f"within {bounces.soft_window_days} days (`soft_window_days`)",
        f"for {bounces.soft_rest_days} days (`soft_rest_days`)",
        f"RSA of {MIN_BITS} bits or more",
    ):
        assert sentence in WORDS, sentence
    assert (email.max_bounce_share, email.max_complaint_share) == (
        breakers.MAX_BOUNCE_SHARE,
        breakers.MAX_COMPLAINT_SHARE,
    )
    assert "Five (`soft_days`)" in WORDS and bounces.soft_days == 5
    assert "for seven days:" in WORDS and reconcile.ASKED_FOR.days == 7
    assert "waits for five minutes" in WORDS and sending.PATIENCE_SECONDS == 5 * 60
    assert "half an hour after the last message" in WORDS and fallback.WAIT.total_seconds() == 30 * 60
    assert [limit.le for limit in way["expire_hours"].metadata if hasattr(limit, "le")] == [24]


def test_its_postfix_lines_are_those_that_are_tested() -> None:
    (lines,) = re.findall(r"^```\n(relay_domains.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    used = postfix._SETTINGS.format(
        folder="", daemons="", port=25, world_port=25, lmtp_port=8024, bounce_domain="bounce.example.com"
    )
    assert lines.splitlines() == [line for line in used.splitlines() if line in lines.splitlines()]


def test_every_webhook_with_its_key(config: Config, tmp_path: Path) -> None:
    environment = Environment(ROOT / "config", ROOT / "templates", tmp_path, "sqlite://", b"a secret of the test")
    hooks = Webhooks(open_engine("sqlite://"), environment, config, env={})
    rows = table("| address | needs |")
    assert {row[0] for row in rows} == {route.path for route in hooks.routes()}
    fields = {*settings.ServiceWebhooks.model_fields, *settings.WhatsAppChannel.model_fields}
    named = {name for row in rows for name in re.findall(r"\b[a-z]+_[a-z_]+\b", row[1])}
    assert named <= fields and set(settings.ServiceWebhooks.model_fields) <= named


def test_the_commented_examples_of_the_configuration_are_sound(tmp_path: Path) -> None:
    """Prose begins with a number sign and one space; every other commented line is an example."""
    for path in (ROOT / "config").glob("*.yaml"):
        text = path.read_text()
        if path.name == "channels.yaml":
            text = re.sub(r"^( *)#(?! \S)", r"\1", text, flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text)
    env = {"TERN_TRACKING_URL": "https://t.atlas.example", "TERN_BOUNCE_DOMAIN": "b.atlas.example"}
    as_it_is, config = load_config(ROOT / "config", env), load_config(tmp_path, env)
    email = config.channels["email"]
    assert isinstance(email, EmailChannel) and email.dkim and email.accounts and email.mailbox_providers
    assert set(config.channels) > set(as_it_is.channels)
    assert config.channels_file.bounces.lmtp_port and config.channels_file.bounces.imap_host
    assert all(config.channels_file.webhooks.model_dump().values())
    assert not as_it_is.channels_file.bounces.lmtp_port, "only an example"


def _models() -> Iterator[type[Section]]:
    for _, each in inspect.getmembers(settings, inspect.isclass):
        if issubclass(each, Section) and each.__module__ == settings.__name__:
            yield each


def _accounts(channels: Any) -> Iterator[Any]:
    for channel in channels:
        if isinstance(channel, EmailChannel):
            yield from (channel.main, *channel.accounts)


def _recipient(shop: str, locale: str, purpose: str) -> Recipient:
    return Recipient(
        message_id=1, plan_id=1, what="winback", customer_id=1, channel="email", purpose=purpose, shop=shop,
        template="winback", locale=locale, address="ada@example.com", name=None,
    )  # fmt: skip
