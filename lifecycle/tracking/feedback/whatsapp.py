"""What WhatsApp reports (Cloud API webhooks): statuses of messages, messages from people, who wants no marketing.

Source: developers.facebook.com/documentation/business-messaging/whatsapp/webhooks, read 2026-11-24.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from lifecycle.channels.http import without_addresses
from lifecycle.channels.meta import CODES, No
from lifecycle.customers.handles import e164, phone_hash
from lifecycle.tracking.feedback.identify import message_of_key
from lifecycle.tracking.feedback.records import Entry, Inbound, Report, Stop
from lifecycle.tracking.feedback.services import instant

KIND = "whatsapp"


@dataclass(frozen=True)
class WhatsAppReader:
    """numbers: ids of the telephone numbers whose reports are taken. `now`: aware UTC."""

    secret: bytes
    now: datetime
    numbers: Collection[str]

    def read(self, payload: Any) -> Iterator[Entry]:
        for entry in _list(_dict(payload).get("entry")):
            for change in _list(entry.get("changes")):
                value = _dict(change.get("value"))
                if _dict(value.get("metadata")).get("phone_number_id") not in self.numbers:
                    continue
                for status in _list(value.get("statuses")):
                    yield from self._status(status)
                for message in _list(value.get("messages")):
                    yield from self._message(message)
                for preference in _list(value.get("user_preferences")):
                    yield from self._preference(preference)

    def _status(self, status: Mapping[str, Any]) -> Iterator[Report]:
        """Statuses repeat, come in any order, and `delivered` may be left out before `read`."""
        provider_id, name = str(status.get("id") or ""), status.get("status")
        about = Report(
            "notice",
            KIND,
            instant(status.get("timestamp"), self.now),
            message_id=message_of_key(str(status.get("biz_opaque_callback_data") or ""), self.secret),
            provider_id=provider_id or None,
            key=f"{provider_id}.{name}"[:200],
        )
        if name in ("delivered", "read"):
            yield replace(about, kind="delivered")
        if name == "read":
            yield replace(about, kind="opened", detail={"read": True})
        elif name == "failed":
            yield self._failed(about, _list(status.get("errors")))
        elif name not in ("sent", "delivered"):
            yield replace(about, kind="unclear", detail={"event": without_addresses(name)[:50]})
        elif name == "sent":
            yield about

    def _failed(self, about: Report, errors: list[Mapping[str, Any]]) -> Report:
        error = errors[0] if errors else {}
        code = error.get("code")
        meaning = CODES.get(code) if isinstance(code, int) else None
        words = [error.get("title"), _dict(error.get("error_data")).get("details")]
        return replace(
            about,
            kind="bounced",
            bounce=meaning.kind if isinstance(meaning, No) else "unknown",
            status=str(code) if isinstance(code, int) else "",
            text=without_addresses(": ".join(str(each) for each in words if each)),
        )

    def _message(self, message: Mapping[str, Any]) -> Iterator[Entry]:
        hashed = self._hash(message.get("from"))
        if hashed is None:
            return
        system = _dict(message.get("system"))
        if system.get("type") == "user_preference_changed":
            yield from self._preference(
                {**message, "wa_id": message.get("from"), "value": system.get("marketing")}
            )
        elif message.get("type") != "system":
            at = instant(message.get("timestamp"), self.now)
            yield Inbound(KIND, hashed, at, f"{KIND}:{message.get('id') or f'{hashed}.{at.isoformat()}'}"[:300])

    def _preference(self, preference: Mapping[str, Any]) -> Iterator[Stop]:
        """Only the no: a yes there is no consent to us."""
        hashed = self._hash(preference.get("wa_id"))
        if hashed is not None and preference.get("value") == "stop":
            yield Stop(
                KIND, hashed, instant(preference.get("timestamp"), self.now), "told WhatsApp to stop marketing"
            )

    def _hash(self, number: Any) -> str | None:
        found = e164(f"+{str(number or '').lstrip('+')}", None)
        return phone_hash(self.secret, found) if found else None


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
