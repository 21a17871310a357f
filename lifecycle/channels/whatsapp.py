"""WhatsApp Business Cloud API, from one telephone number.

A template's extras: `header` (its parameter), `header_image`, `header_video` or `header_document` (https address),
`button_0` to `button_9` (what is appended to the address of that button), `reply_0` to `reply_9` (what comes back
when that button is pressed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import AnswerLost, required_secret
from lifecycle.channels.meta import MetaChannel
from lifecycle.clock import Clock, utc_now
from lifecycle.messages.records import Note
from lifecycle.settings.channels import WhatsAppChannel

_NUMBER = re.compile(r"\+?[1-9]\d{6,14}")
_BUTTON = re.compile(r"(button|reply)_(\d)")


class WhatsApp(MetaChannel):
    """A note with a template is sent as that; one without as plain text, which WhatsApp takes only within a day
    of the person's last message."""

    def __init__(self, settings: WhatsAppChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where the token is missing."""
        super().__init__(
            "WhatsApp", settings.url, required_secret(settings, "token_env", env), settings.timeout_seconds
        )
        self._settings = settings

    def request(self, note: Note) -> tuple[str, Mapping[str, Any]] | Refused:
        if not _NUMBER.fullmatch(note.to):
            return Refused("", "that is no telephone number in E.164", True, "address", "hard")
        if not note.template and not note.text:
            return Refused("", "the message is empty", True, "message", "content")
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": note.to,
            "type": "template" if note.template else "text",
        }
        if note.template:
            body["template"] = _template(note)
        else:
            body["text"] = {"body": note.text}
        if self._settings.marketing_endpoint and note.template and note.purpose == "marketing":
            # This endpoint's schema has no room for biz_opaque_callback_data and forbids what it does not know.
            return f"{self._settings.phone_number_id}/marketing_messages", body
        return f"{self._settings.phone_number_id}/messages", body | {"biz_opaque_callback_data": note.key}

    def taken(self, note: Note, said: Mapping[str, Any]) -> Outcome:
        try:
            message = said["messages"][0]
            provider_id, status = message["id"], message.get("message_status", "accepted")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise AnswerLost("WhatsApp answered without a message") from None
        if status == "paused":
            return Refused("paused", "WhatsApp holds the template back for its quality", permanent=False)
        if not provider_id:
            raise AnswerLost("WhatsApp answered without the id of the message")
        # Also held_for_quality_assessment: it leaves later, or a status says that it failed.
        return Accepted(str(provider_id))


def _template(note: Note) -> Mapping[str, Any]:
    language = {"policy": "deterministic", "code": note.language}
    return {"name": note.template, "language": language, "components": list(_components(note))}


def _components(note: Note) -> Iterator[Mapping[str, Any]]:
    header: list[Mapping[str, Any]] = [
        {"type": kind, kind: {"link": note.extras[f"header_{kind}"]}}
        for kind in ("image", "video", "document")
        if f"header_{kind}" in note.extras
    ]
    if "header" in note.extras:
        header.append(_text(note.extras["header"]))
    if header:
        yield {"type": "header", "parameters": header}
    if note.parameters:
        yield {"type": "body", "parameters": [_text(each) for each in note.parameters]}
    for name, value in sorted(note.extras.items()):
        if button := _BUTTON.fullmatch(name):
            kind, index = button.groups()
            sub_type, parameter = ("url", "text") if kind == "button" else ("quick_reply", "payload")
            parameters = [{"type": parameter, parameter: value}]
            yield {"type": "button", "sub_type": sub_type, "index": index, "parameters": parameters}


def _text(value: str) -> Mapping[str, str]:
    """Meta refuses parameters with line breaks, tabs or more than four spaces in a row."""
    return {"type": "text", "text": " ".join(value.split())}
