"""What e-mail services report, in our words. Opens and clicks are left out: our own pixel and links count them.

A message is found by the number and key that we gave the service with the mail, by its Message-ID if that is ours,
or by the service's own id; never by its address. Words that are not in a table are kept for a person to look at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lifecycle.channels.base import BounceClass
from lifecycle.channels.http import without_addresses
from lifecycle.tracking.feedback.dsn import failure
from lifecycle.tracking.feedback.identify import MAX_ID, email_hash, message_of_key
from lifecycle.tracking.feedback.records import Kind, Report

SENDGRID: Mapping[str, Kind | None] = {
    # twilio.com/docs/sendgrid/for-developers/tracking-events/event, read 2026-11-24
    "processed": "notice",
    "deferred": "notice",
    "delivered": "delivered",
    "bounce": "bounced",
    "dropped": "bounced",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
    "group_resubscribe": None,
    "account_status_change": None,
    "open": None,
    "click": None,
}
SENDGRID_DROPPED: Mapping[str, tuple[Kind, BounceClass | None]] = {
    "bounced address": ("bounced", "hard"),
    "invalid": ("bounced", "hard"),
    "unsubscribed address": ("unsubscribed", None),
    "spam reporting address": ("unsubscribed", None),  # that complaint was about another mail
    "spam content (if spam checker app enabled)": ("bounced", "content"),
    "spam content": ("bounced", "content"),
}
MAILGUN: Mapping[str, Kind | None] = {
    # documentation.mailgun.com, "Events", read 2026-11-24
    "accepted": "notice",
    "delivered": "delivered",
    "failed": "bounced",
    "rejected": "bounced",
    "complained": "complained",
    "unsubscribed": "unsubscribed",
    "stored": None,
    "opened": None,
    "clicked": None,
}
MAILGUN_REASONS: Mapping[str, tuple[Kind, BounceClass | None]] = {
    "suppress-bounce": ("bounced", "hard"),
    "suppress-unsubscribe": ("unsubscribed", None),
    "suppress-complaint": ("unsubscribed", None),
}
SES: Mapping[str, Kind | None] = {
    # docs.aws.amazon.com/ses, "Contents of event data", read 2026-11-24
    "Send": "notice",
    "Delivery": "delivered",
    "DeliveryDelay": "notice",
    "Bounce": "bounced",
    "Reject": "bounced",
    "Rendering Failure": "bounced",
    "Complaint": "complained",
    "Subscription": "unsubscribed",
    "Open": None,
    "Click": None,
}
SES_TRANSIENT: Mapping[str, BounceClass] = {
    "MailboxFull": "full",
    "MessageTooLarge": "content",
    "ContentRejected": "content",
    "AttachmentRejected": "content",
}
POSTMARK: Mapping[str, Kind | None] = {
    # postmarkapp.com/developer/webhooks, read 2026-11-24
    "Delivery": "delivered",
    "Bounce": "bounced",
    "SpamComplaint": "complained",
    "SubscriptionChange": "unsubscribed",
    "Open": None,
    "Click": None,
}
POSTMARK_BOUNCES: Mapping[str, tuple[Kind | None, BounceClass | None]] = {
    # postmarkapp.com/developer/api/bounce-api#bounce-types; no class: its words decide
    "HardBounce": ("bounced", "hard"),
    "BadEmailAddress": ("bounced", "hard"),
    "SoftBounce": ("bounced", "soft"),
    "DnsError": ("bounced", "soft"),
    "Undeliverable": ("bounced", "soft"),
    "Blocked": ("bounced", "policy"),
    "DMARCPolicy": ("bounced", "policy"),
    "SpamNotification": ("bounced", "policy"),
    "VirusNotification": ("bounced", "content"),
    "TemplateRenderingFailed": ("bounced", "content"),
    "SMTPApiError": ("bounced", "unknown"),
    "Unknown": ("bounced", "unknown"),
    "Unconfirmed": ("bounced", "unknown"),
    "ManuallyDeactivated": ("bounced", "unknown"),
    "SpamComplaint": ("complained", None),
    "Unsubscribe": ("unsubscribed", None),
    "Transient": ("notice", None),
    "AutoResponder": ("notice", None),
    "AddressChange": ("notice", None),
    "ChallengeVerification": ("notice", None),
    "Subscribe": (None, None),
    "OpenRelayTest": (None, None),
    "InboundError": (None, None),
}


@dataclass(frozen=True)
class Reader:
    """`now`: aware UTC; what a service dates later, or not at all, is from now."""

    secret: bytes
    now: datetime

    def sendgrid(self, events: Any) -> Iterator[Report]:
        for event in _list(events):
            name = _text(event.get("event"))
            kind = SENDGRID.get(name, "unclear")
            if kind is None:
                continue
            report = self._report("sendgrid", kind, event, at=event.get("timestamp"), key=event.get("sg_event_id"))
            keys = [_text(event.get("smtp-id"))]
            report = self._about(report, event, keys, _text(event.get("sg_message_id")).partition(".")[0])
            report = self._named(report, event.get("email"))
            if name == "dropped":
                reason = _text(event.get("reason")).strip().lower()
                report = self._with(report, *SENDGRID_DROPPED.get(reason, ("bounced", "unknown")), reason, "")
            elif name == "bounce":
                report = self._failed(report, _text(event.get("reason")), _text(event.get("status")))
                if event.get("type") == "blocked" and report.bounce == "hard":
                    report = replace(report, bounce="policy")  # the service itself says: not the address
            yield report

    def mailgun(self, payload: Any) -> Iterator[Report]:
        event = _dict(_dict(payload).get("event-data"))
        name = _text(event.get("event"))
        kind = MAILGUN.get(name, "unclear")
        if kind is None:
            return
        report = self._report("mailgun", kind, event, at=event.get("timestamp"), key=event.get("id"))
        message_id = _text(_dict(_dict(event.get("message")).get("headers")).get("message-id"))
        marks = _dict(event.get("user-variables"))
        report = self._about(report, marks, [message_id], f"<{message_id.strip('<>')}>" if message_id else "")
        report = self._named(report, event.get("recipient"))
        if name == "rejected":
            yield self._with(report, "bounced", "content", _text(_dict(event.get("reject")).get("reason")), "")
        elif name == "failed":
            yield self._mailgun_failure(report, event)
        else:
            yield report

    def _mailgun_failure(self, report: Report, event: Mapping[str, Any]) -> Report:
        if event.get("severity") != "permanent":
            return replace(report, kind="notice")  # Mailgun tries again
        reason, status = _text(event.get("reason")), _dict(event.get("delivery-status"))
        words = _text(status.get("message")) or _text(status.get("description"))
        if reason in MAILGUN_REASONS:
            return self._with(report, *MAILGUN_REASONS[reason], words, "")
        code = status.get("code")
        smtp = f"{code} " if isinstance(code, int) and 400 <= code < 560 and not words[:3].isdigit() else ""
        return self._failed(report, smtp + words, _text(status.get("enhanced-code")))

    def ses(self, envelope: Any) -> Iterator[Report]:
        """envelope: SNS's, whose Message is the event as text."""
        envelope = _dict(envelope)
        try:
            event = _dict(json.loads(_text(envelope.get("Message"))))
        except ValueError:
            return  # SNS says itself that the topic works
        mail, name = _dict(event.get("mail")), _text(event.get("eventType") or event.get("notificationType"))
        kind = SES.get(name, "unclear") if mail else None
        if kind is None:
            return
        about = _dict(event.get(_SES_DETAILS.get(name, name.lower())))
        report = self._report("ses", kind, event, at=about.get("timestamp"), key=envelope.get("MessageId"))
        tags = {
            name: values[0]
            for name, values in _dict(mail.get("tags")).items()
            if isinstance(values, list) and values
        }
        headers = {
            _text(each.get("name")).lower(): _text(each.get("value")) for each in _list(mail.get("headers"))
        }
        keys = [headers.get("message-id", "")]
        report = self._about(report, tags, keys, _text(mail.get("messageId")))
        if name == "Bounce":
            yield from self._ses_bounces(report, about)
        elif name == "Complaint":
            yield self._ses_complaint(report, about)
        elif name == "Subscription":
            yield report if _left(_dict(about.get("newTopicPreferences"))) else replace(report, kind="notice")
        elif kind == "bounced":
            yield self._with(
                report, "bounced", "content", _text(about.get("reason") or about.get("errorMessage")), ""
            )
        else:
            yield report

    def _ses_bounces(self, report: Report, bounce: Mapping[str, Any]) -> Iterator[Report]:
        kind, subtype = _text(bounce.get("bounceType")), _text(bounce.get("bounceSubType"))
        for each in _list(bounce.get("bouncedRecipients")) or [{}]:
            named = self._named(report, each.get("emailAddress"))
            words, status = _text(each.get("diagnosticCode")).partition(";")[2], _text(each.get("status"))
            found = self._failed(named, words or _text(each.get("diagnosticCode")), status)
            if kind == "Permanent" and (found.bounce == "unknown" or not words):
                found = replace(found, bounce="hard")
            elif kind == "Transient" and found.status != "5.4.4":
                # Without any status it may be an out-of-office answer, which SES calls transient, too.
                found = replace(found, bounce=SES_TRANSIENT.get(subtype) or ("soft" if status else "unknown"))
            elif kind == "Undetermined":
                found = replace(found, bounce="unknown")
            yield replace(found, detail={"type": f"{kind}/{subtype}"[:100]})

    def _ses_complaint(self, report: Report, complaint: Mapping[str, Any]) -> Report:
        if complaint.get("complaintSubType") == "OnAccountSuppressionList":
            return replace(report, kind="unsubscribed")  # that complaint was about another mail
        kind = _text(complaint.get("complaintFeedbackType"))
        if kind == "not-spam":
            return replace(report, kind="notice")
        if kind not in ("", "abuse"):
            return replace(report, kind="unclear", detail={"feedback_type": kind[:50]})
        return report

    def postmark(self, event: Any) -> Iterator[Report]:
        event = _dict(event)
        name = _text(event.get("RecordType"))
        kind, of_bounce = POSTMARK.get(name, "unclear"), _text(event.get("Type"))
        bounce: BounceClass | None = None
        if name == "Bounce":
            kind, bounce = POSTMARK_BOUNCES.get(of_bounce, ("unclear", None))
        elif name == "SubscriptionChange":
            kind = "unsubscribed" if event.get("SuppressionReason") == "ManualSuppression" else "notice"
        if kind is None:
            return
        at = next((event[each] for each in ("DeliveredAt", "BouncedAt", "ChangedAt") if event.get(each)), None)
        key = f"{name}.{event.get('ID') or event.get('MessageID') or ''}"
        report = self._report("postmark", kind, event, at=at, key=key)
        report = self._about(report, _dict(event.get("Metadata")), [], _text(event.get("MessageID")))
        report = self._named(report, event.get("Email") or event.get("Recipient"))
        if kind == "bounced":
            words = _text(event.get("Details")) or _text(event.get("Description"))
            found = self._failed(report, words.removeprefix("smtp;").strip(), "")
            report = found if (bounce, found.bounce) == ("soft", "full") else replace(found, bounce=bounce)
        yield report

    def _report(self, source: str, kind: Kind, event: Mapping[str, Any], *, at: Any, key: Any) -> Report:
        name = next((_text(event.get(each)) for each in _NAMES if event.get(each)), "")
        detail = {"event": without_addresses(name)[:50]} if kind == "unclear" else {}
        return Report(kind, source, instant(at, self.now), detail=detail, key=_text(key)[:200])

    def _about(self, report: Report, marks: Mapping[str, Any], keys: Iterable[str], provider_id: str) -> Report:
        """`send_key` says whether `send_id` is ours: others may count, too."""
        if key := _text(marks.get("send_key")):
            return replace(report, message_id=message_of_key(key, self.secret))
        for key in keys:
            if (message_id := message_of_key(key, self.secret)) is not None:
                return replace(report, message_id=message_id)
        number = _text(marks.get("send_id"))
        if number.isascii() and number.isdecimal() and len(number) < 20 and 0 < int(number) <= MAX_ID:
            return replace(report, message_id=int(number))
        return replace(report, provider_id=provider_id[:500] or None)

    def _named(self, report: Report, address: Any) -> Report:
        hashed = email_hash(_text(address), self.secret)
        return replace(report, named=(hashed,) if hashed else ())

    def _failed(self, report: Report, words: str, status: str) -> Report:
        why = failure(words, status)
        return self._with(report, "bounced", why.bounce, why.text, why.status)

    def _with(self, report: Report, kind: Kind, bounce: BounceClass | None, words: str, status: str) -> Report:
        return replace(report, kind=kind, bounce=bounce, text=without_addresses(words), status=status[:20])


_NAMES = ("event", "eventType", "notificationType", "RecordType")
_SES_DETAILS = {"Rendering Failure": "failure", "DeliveryDelay": "deliveryDelay"}


def instant(value: Any, now: datetime) -> datetime:
    """Seconds since 1970 or ISO 8601, as services write it; now, where it is neither or lies ahead. Aware UTC."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            found = datetime.fromisoformat(value)
        else:
            found = datetime.fromtimestamp(float(value), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return now
    return min(found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC), now)


def _left(preferences: Mapping[str, Any]) -> bool:
    """SES: the person wants nothing any more, or not this topic."""
    topics = _list(preferences.get("topicSubscriptionStatus"))
    return preferences.get("unsubscribeAll") is True or any(
        each.get("subscriptionStatus") == "OptOut" for each in topics
    )


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) and value is not True else ""
