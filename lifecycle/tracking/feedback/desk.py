"""Where mails are handed in: read, and written down in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Engine

from lifecycle.clock import Clock, utc_now
from lifecycle.db.engine import writing
from lifecycle.errors import ConfigError
from lifecycle.settings import Config, Environment
from lifecycle.tracking.feedback.imap import read_imap
from lifecycle.tracking.feedback.intake import Taken, take_in
from lifecycle.tracking.feedback.mails import Arrived, read_mail
from lifecycle.tracking.feedback.records import Entry

logger = logging.getLogger(__name__)


def read_mailbox(
    engine: Engine, environment: Environment, config: Config, env: Mapping[str, str], *, clock: Clock = utc_now
) -> str | None:
    """Take in what lies in the mailbox of config/channels.yaml, bounces. Returns a sentence, None where none is
    named. Raises ConfigError without its password, NotReady where it cannot be read."""
    settings = config.channels_file.bounces
    if not settings.imap_host:
        return None
    password = env.get(settings.imap_password_env, "") if settings.imap_password_env else ""
    if not password:
        raise ConfigError(
            "config/channels.yaml: bounces.imap_host needs a password; set imap_password_env and the variable or "
            "Secret block that it names"
        )
    desk = Desk(engine, environment, config, clock=clock)
    return read_imap(settings, password, lambda mails: desk.take_mails(mails, source="imap")).sentence()


class Desk:
    def __init__(
        self, engine: Engine, environment: Environment, config: Config, *, clock: Clock = utc_now
    ) -> None:
        self.engine = engine
        self._secret, self._config, self._clock = environment.secret, config, clock

    def take_mails(self, mails: Iterable[Arrived], *, source: str) -> Taken:
        """All of them or, where the database does not take it, none. Raises what the database raises."""
        entries = [entry for mail in mails for entry in self.read(mail, source=source)]
        with writing(self.engine) as connection:
            [taken] = self.write(connection, [entries])
        return taken

    def read(self, mail: Arrived, *, source: str) -> Sequence[Entry]:
        return read_mail(mail, self._secret, source=source, now=self._clock())

    def write(self, connection: Connection, groups: Sequence[Sequence[Entry]]) -> list[Taken]:
        """Groups of entries that came at the same time; each is answered for with what all became."""
        entries = [entry for group in groups for entry in group]
        taken = take_in(connection, entries, config=self._config, now=self._clock())
        for sentence in taken.stopped:
            logger.warning("stopped: %s", sentence)
        return [taken] * len(groups)
