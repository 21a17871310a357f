"""Facebook Messenger, from one page.

Extras: `tag`, a message tag (HUMAN_AGENT and the like) for what is no marketing; `notification_messages_token`,
with which somebody who asked for marketing is written to after a day. A recipient's address may be such a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import AnswerLost, required_secret
from lifecycle.channels.meta import MetaChannel
from lifecycle.clock import Clock, utc_now
from lifecycle.messages.records import Note
from lifecycle.settings.channels import MessengerChannel


class Messenger(MetaChannel):
    """Only the text is sent. Within a day of the person's last message anything may be said; later Meta refuses
    what has neither tag nor token."""

    def __init__(self, settings: MessengerChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where the token is missing."""
        super().__init__(
            "Messenger", settings.url, required_secret(settings, "token_env", env), settings.timeout_seconds
        )
        self._path = f"{settings.page_id}/messages"

    def request(self, note: Note) -> tuple[str, Mapping[str, Any]] | Refused:
        tag = note.extras.get("tag", "")
        if tag and note.purpose == "marketing":
            return Refused("", "a message tag must not carry marketing; leave extras.tag out", True, kind="policy")
        if not note.text:
            return Refused("", "the message is empty", True, kind="content")
        recipient = _recipient(note)
        body: dict[str, Any] = {"recipient": recipient, "message": {"text": note.text, "metadata": note.key}}
        if "id" in recipient:
            body |= {"messaging_type": "MESSAGE_TAG", "tag": tag} if tag else {"messaging_type": "UPDATE"}
        return self._path, body

    def taken(self, note: Note, said: Mapping[str, Any]) -> Outcome:
        if not said.get("message_id"):
            raise AnswerLost("Messenger answered without the id of a message")
        return Accepted(str(said["message_id"]))


def _recipient(note: Note) -> Mapping[str, str]:
    """Page-scoped ids are digits; tokens are not."""
    token = note.extras.get("notification_messages_token") or ("" if note.to.isdecimal() else note.to)
    return {"notification_messages_token": token} if token else {"id": note.to}
