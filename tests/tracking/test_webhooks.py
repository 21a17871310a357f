"""Webhooks through the real web app: signatures, repetitions, what each service's words do to the ledger."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, insert, text, update

from lifecycle.addresses import address_hash
from lifecycle.customers.handles import phone_hash
from lifecycle.db.engine import writing
from lifecycle.db.schema import (
    breakers,
    consents,
    inbound_messages,
    message_events,
    messages,
    suppressions,
    unmatched_reports,
)
from lifecycle.errors import ConfigError
from lifecycle.messages.keys import mail_key, note_key
from lifecycle.settings import Config, Environment
from lifecycle.tracking.app import create_app
from lifecycle.tracking.feedback import signatures
from lifecycle.tracking.feedback.webhooks import MAX_BODY_BYTES
from sandbox.servers import serve
from tests.conftest import FakeClock
from tests.tracking.feedback import SECRET, address, database_url, rows

__all__ = ["database_url"]

TOPIC = "arn:aws:sns:eu-central-1:123456789012:ses"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem"
SUBSCRIBE_URL = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())
SNS_KEY = rsa.generate_private_key(65537, 2048)
PHONE = "+16505551234"


def _certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    begins = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins).not_valid_after(begins + dt.timedelta(days=3650))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


SNS_CERTIFICATE = _certificate(SNS_KEY)
ENV = {
    "SENDGRID_KEY": base64.b64encode(
        SENDGRID_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode(),
    "MAILGUN_KEY": "mgkey",
    "POSTMARK_LOGIN": "hook:pass word",
    "META_SECRET": "metasecret",
    "META_VERIFY": "verify me",
}
WEBHOOKS = {
    "sendgrid_public_key_env": "SENDGRID_KEY", "mailgun_signing_key_env": "MAILGUN_KEY", "ses_topic_arn": TOPIC,
    "postmark_login_env": "POSTMARK_LOGIN",
}  # fmt: skip
WHATSAPP = {
    "name": "whatsapp", "kind": "whatsapp", "phone_number_id": "106540352242922", "token_env": "T",
    "app_secret_env": "META_SECRET", "verify_token_env": "META_VERIFY",
}  # fmt: skip


class Net:
    """The addresses that were fetched; everything else is off."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.down = False

    def fetch(self, url: str) -> bytes:
        if self.down:
            raise httpx.ConnectError("down")
        self.fetched.append(url)
        return SNS_CERTIFICATE


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def configured(config: Config, changed: Callable[..., Config]) -> Config:
    channels = [json.loads(each.model_dump_json()) for each in config.channels_file.channels]
    return changed(channels_file={"webhooks": WEBHOOKS, "channels": [*channels, WHATSAPP]})


@pytest.fixture
def hooks(
    engine: Engine, environment: Environment, configured: Config, clock: FakeClock, net: Net
) -> Iterator[httpx.Client]:
    app = create_app(engine, environment, configured, clock=clock, env=ENV, fetch=net.fetch)
    with serve(app) as url, httpx.Client(base_url=url) as client:
        yield client


def hash_of(message_id: int) -> str:
    return address_hash(SECRET, "email", address(message_id))


def marks(message_id: int = 101) -> dict[str, str]:
    return {"send_id": str(message_id), "send_key": mail_key(SECRET, message_id, None).strip("<>").split("@")[0]}


def events(engine: Engine) -> set[tuple[Any, ...]]:
    return {
        (each.message_id, each.kind, (each.detail or {}).get("class")) for each in rows(engine, message_events)
    }


def nothing(engine: Engine) -> bool:
    tables = (message_events, suppressions, unmatched_reports, inbound_messages, consents, breakers)
    return not any(rows(engine, table) for table in tables)


# SendGrid


def sendgrid(hooks: httpx.Client, *found: Any, key: ec.EllipticCurvePrivateKey = SENDGRID_KEY) -> int:
    body = json.dumps(found).encode()
    signature = key.sign(b"1790000000" + body, ec.ECDSA(hashes.SHA256()))
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": "1790000000",
    }
    return hooks.post("/hooks/sendgrid", content=body, headers=headers).status_code


def sg(event: str, message_id: int = 101, **further: Any) -> dict[str, Any]:
    shared = {"email": address(message_id), "timestamp": 1795338000, "event": event, "sg_event_id": f"e-{event}"}
    return shared | marks(message_id) | further


def test_sendgrids_words(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    assert sendgrid(
        hooks,
        sg("processed"), sg("deferred", response="400 later"), sg("delivered"),
        sg("bounce", 102, type="bounce", status="5.1.1", reason="550 5.1.1 unknown user"),
        sg("bounce", 103, type="blocked", status="5.1.1", reason="550 blocked by us, unknown user"),
        sg("open", sg_machine_open=True), sg("click", url="https://x.example"), sg("group_resubscribe"),
        sg("spamreport", 103), sg("something new"), "no event", {"event": "delivered", "email": "x@example.net"},
    ) == 200  # fmt: skip
    assert events(engine) == {
        (101, "delivered", None), (102, "bounced", "hard"), (103, "bounced", "policy"), (103, "complained", None),
    }  # fmt: skip
    bans = {(ban.address_hash, ban.reason, ban.purpose) for ban in rows(engine, suppressions)}
    assert bans == {(hash_of(102), "hard_bounce", "all"), (hash_of(103), "complaint", "marketing")}
    [unclear] = rows(engine, unmatched_reports)
    assert (unclear.kind, unclear.source, unclear.detail["event"]) == ("unclear", "sendgrid", "something new")


def test_what_sendgrid_drops_is_not_a_new_complaint(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    reasons = ("Bounced Address", "Unsubscribed Address", "Spam Reporting Address")
    assert sendgrid(hooks, *(sg("dropped", 101 + n, reason=reason) for n, reason in enumerate(reasons))) == 200
    assert {(each.message_id, each.kind) for each in rows(engine, message_events)} == {
        (101, "bounced"), (102, "unsubscribed"), (103, "unsubscribed"),
    }  # fmt: skip
    assert {ban.reason for ban in rows(engine, suppressions)} == {"hard_bounce", "unsubscribe"}


def test_a_repeated_event_changes_nothing(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    found = [sg("bounce", status="5.1.1", type="bounce"), sg("unsubscribe", 102), sg("bounce", send_key="1.x")]
    for _ in range(3):
        assert sendgrid(hooks, *found) == 200
    assert [len(rows(engine, table)) for table in (message_events, suppressions, unmatched_reports)] == [2, 2, 1]


def test_numbers_of_another_ledger_are_not_ours(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    assert sendgrid(hooks, sg("bounce", send_key="101.0123456789abcdef", status="5.1.1")) == 200
    assert sendgrid(hooks, sg("bounce", send_id="1e3", send_key="", status="5.1.1", sg_event_id="f")) == 200
    assert rows(engine, message_events) == rows(engine, suppressions) == []
    assert len(rows(engine, unmatched_reports)) == 2


def test_a_mail_that_went_by_smtp_is_found_by_its_message_id(
    hooks: httpx.Client, engine: Engine, ids: list[int]
) -> None:
    event = sg("delivered", 102) | {"smtp-id": mail_key(SECRET, 102, "brand.example")}
    assert sendgrid(hooks, {name: value for name, value in event.items() if not name.startswith("send_")}) == 200
    assert events(engine) == {(102, "delivered", None)}


def test_who_signs_wrongly_gets_403_and_leaves_nothing(
    hooks: httpx.Client, engine: Engine, ids: list[int]
) -> None:
    good = sg("bounce", status="5.1.1")
    assert sendgrid(hooks, good, key=ec.generate_private_key(ec.SECP256R1())) == 403
    body = json.dumps([good]).encode()
    signed = base64.b64encode(SENDGRID_KEY.sign(b"1" + body, ec.ECDSA(hashes.SHA256()))).decode()
    for signature, timestamp in (("", "1"), (signed, ""), (signed, "2"), ("!", "1"), ("é", "1")):
        headers = {
            b"X-Twilio-Email-Event-Webhook-Signature": signature.encode(),
            b"X-Twilio-Email-Event-Webhook-Timestamp": timestamp.encode(),
        }
        assert hooks.post("/hooks/sendgrid", content=body, headers=headers).status_code == 403
    assert nothing(engine)


# Mailgun


def mailgun_body(
    event: Mapping[str, Any], *, at: float, token: str = "a" * 50, key: str = "mgkey"
) -> dict[str, Any]:
    timestamp = str(int(at))
    signature = hmac.new(key.encode(), (timestamp + token).encode(), hashlib.sha256).hexdigest()
    return {"signature": {"timestamp": timestamp, "token": token, "signature": signature}, "event-data": event}


def mg(event: str, **further: Any) -> dict[str, Any]:
    return {
        "event": event, "id": f"id-{event}", "timestamp": 1795338000.5, "recipient": address(101),
        "user-variables": marks(), "message": {"headers": {"message-id": "x@mg.example.test"}},
    } | further  # fmt: skip


MAILGUN = [
    (mg("accepted"), set()),
    (mg("delivered"), {(101, "delivered", None)}),
    (
        mg("failed", severity="permanent", **{"delivery-status": {"code": 550, "message": "5.1.1 no such user"}}),
        {(101, "bounced", "hard")},
    ),
    (
        mg("failed", severity="permanent", **{"delivery-status": {"code": 552, "message": "5.2.2 mailbox full"}}),
        {(101, "bounced", "full")},
    ),
    (mg("failed", severity="temporary", **{"delivery-status": {"code": 498, "message": "no MX"}}), set()),
    (mg("failed", severity="permanent", reason="suppress-bounce"), {(101, "bounced", "hard")}),
    (mg("failed", severity="permanent", reason="suppress-unsubscribe"), {(101, "unsubscribed", None)}),
    (mg("rejected", reject={"reason": "no"}), {(101, "bounced", "content")}),
    (mg("complained"), {(101, "complained", None)}),
    (mg("unsubscribed"), {(101, "unsubscribed", None)}),
    (mg("opened"), set()),
    (mg("clicked"), set()),
]


def test_mailguns_words(hooks: httpx.Client, engine: Engine, ids: list[int], clock: FakeClock) -> None:
    for number, (event, wanted) in enumerate(MAILGUN):
        body = mailgun_body(event, at=clock.now.timestamp(), token=f"token {number}")
        assert hooks.post("/hooks/mailgun", json=body).status_code == 200
        assert events(engine) == wanted, event
        with writing(engine) as connection:
            connection.execute(message_events.delete())
            connection.execute(suppressions.delete())


def test_a_mailgun_token_is_good_for_one_event(
    hooks: httpx.Client, engine: Engine, ids: list[int], clock: FakeClock
) -> None:
    now = clock.now.timestamp()
    first = mailgun_body(mg("delivered"), at=now)
    assert hooks.post("/hooks/mailgun", json=first).status_code == 200
    assert hooks.post("/hooks/mailgun", json=first).status_code == 200  # its answer was lost
    assert hooks.post("/hooks/mailgun", json=first | {"event-data": mg("complained")}).status_code == 403
    body: Any
    for body in (
        mailgun_body(mg("complained"), at=now, token="b", key="another"),
        mailgun_body(mg("complained"), at=now - 13 * 3600, token="c"),
        mailgun_body(mg("complained"), at=now + 13 * 3600, token="d"),
        {"event-data": mg("complained")}, [], {"signature": "x"},
    ):  # fmt: skip
        assert hooks.post("/hooks/mailgun", json=body).status_code == 403
    assert events(engine) == {(101, "delivered", None)} and rows(engine, suppressions) == []


# Amazon SES


def sns(
    event: Mapping[str, Any] | None, *, version: str = "2", key: rsa.RSAPrivateKey = SNS_KEY, **further: Any
) -> dict[str, Any]:
    message = {
        "Type": "Notification", "MessageId": "m-1", "TopicArn": TOPIC, "Message": json.dumps(event),
        "Timestamp": "2026-11-22T09:00:00.000Z", "SignatureVersion": version, "SigningCertURL": CERTIFICATE_URL,
    } | further  # fmt: skip
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    plain = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
    return message | {
        "Signature": base64.b64encode(key.sign(plain.encode(), padding.PKCS1v15(), algorithm)).decode()
    }


def post_sns(hooks: httpx.Client, message: Mapping[str, Any]) -> int:
    content = json.dumps(message).encode()
    return hooks.post("/hooks/ses", content=content, headers={"Content-Type": "text/plain"}).status_code


def ses(kind: str, message_id: int = 101, **further: Any) -> dict[str, Any]:
    mail = {"messageId": "0100-ses", "tags": {"send_id": [str(message_id)]}, "destination": [address(message_id)]}
    return {"eventType": kind, "mail": mail, **further}


def ses_bounce(kind: str, subtype: str = "General", **recipient: str) -> dict[str, Any]:
    named = {"emailAddress": address(101)} | recipient
    return ses("Bounce", bounce={"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": [named]})


SES = [
    (ses("Send", send={}), set()),
    (ses("Delivery", delivery={"timestamp": "2026-11-22T08:30:00.000Z"}), {(101, "delivered", None)}),
    (ses("DeliveryDelay", deliveryDelay={}), set()),
    (
        ses_bounce("Permanent", status="5.1.1", diagnosticCode="smtp; 550 5.1.1 unknown"),
        {(101, "bounced", "hard")},
    ),
    (ses_bounce("Permanent", "OnAccountSuppressionList"), {(101, "bounced", "hard")}),
    (
        ses_bounce("Permanent", status="5.7.1", diagnosticCode="smtp; 550 5.7.1 spam"),
        {(101, "bounced", "policy")},
    ),
    (ses_bounce("Transient", "MailboxFull", status="5.2.2"), {(101, "bounced", "full")}),
    (ses_bounce("Transient", status="4.4.1", diagnosticCode="smtp; 421 4.4.1 later"), {(101, "bounced", "soft")}),
    (
        ses_bounce("Transient", status="5.4.4", diagnosticCode="smtp; 550 5.4.4 no host"),
        {(101, "bounced", "hard")},
    ),
    (ses_bounce("Transient"), {(101, "bounced", "unknown")}),
    (ses_bounce("Undetermined", status="5.1.1"), {(101, "bounced", "unknown")}),
    (ses("Reject", reject={"reason": "Bad content"}), {(101, "bounced", "content")}),
    (ses("Rendering Failure", failure={"errorMessage": "no"}), {(101, "bounced", "content")}),
    (ses("Complaint", complaint={"complaintFeedbackType": "abuse"}), {(101, "complained", None)}),
    (ses("Complaint", complaint={}), {(101, "complained", None)}),
    (ses("Complaint", complaint={"complaintFeedbackType": "not-spam"}), set()),
    (ses("Complaint", complaint={"complaintSubType": "OnAccountSuppressionList"}), {(101, "unsubscribed", None)}),
    (
        ses("Subscription", subscription={"newTopicPreferences": {"unsubscribeAll": True}}),
        {(101, "unsubscribed", None)},
    ),
    (ses("Subscription", subscription={"newTopicPreferences": {"unsubscribeAll": False}}), set()),
    (ses("Open", open={}), set()),
    (ses("Click", click={}), set()),
    (None, set()),
]


@pytest.mark.parametrize("version", ["1", "2"])
def test_sess_words(hooks: httpx.Client, engine: Engine, ids: list[int], net: Net, version: str) -> None:
    for event, wanted in SES:
        assert post_sns(hooks, sns(event, version=version)) == 200
        assert events(engine) == wanted, event
        with writing(engine) as connection:
            connection.execute(message_events.delete())
    assert net.fetched == [CERTIFICATE_URL]


def test_a_subscription_is_confirmed_for_our_topic_only(hooks: httpx.Client, net: Net) -> None:
    asked: dict[str, Any] = {"Type": "SubscriptionConfirmation", "Token": "t", "SubscribeURL": SUBSCRIBE_URL}
    assert post_sns(hooks, sns({}, **asked)) == 200
    assert net.fetched == [CERTIFICATE_URL, SUBSCRIBE_URL]
    elsewhere = asked | {"SubscribeURL": "https://sns.eu-central-1.amazonaws.com.evil.example/"}
    assert post_sns(hooks, sns({}, **elsewhere)) == 403
    assert post_sns(hooks, sns({}, **asked, TopicArn=TOPIC + "x")) == 403
    assert net.fetched == [CERTIFICATE_URL, SUBSCRIBE_URL]


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/x.pem",
        "https://evilamazonaws.com/x.pem",
        "https://bucket.s3.amazonaws.com/x.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/x.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/x.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/x.pem",
        "https://[sns.eu-central-1.amazonaws.com/x.pem",
        "",
    ],
)
def test_a_certificate_is_fetched_from_sns_only(hooks: httpx.Client, net: Net, engine: Engine, url: str) -> None:
    assert post_sns(hooks, sns(ses("Complaint", complaint={}), SigningCertURL=url)) == 403
    assert net.fetched == [] and nothing(engine)


def test_what_sns_has_not_signed_is_refused(hooks: httpx.Client, engine: Engine, ids: list[int], net: Net) -> None:
    good = sns(ses("Complaint", complaint={}))
    other = rsa.generate_private_key(65537, 2048)
    message: Any
    for message in (
        sns(ses("Complaint", complaint={}), key=other), good | {"Message": "{}"}, good | {"SignatureVersion": "3"},
        good | {"Signature": "!"}, good | {"Type": "Other"}, [], "x",
    ):  # fmt: skip
        assert hooks.post("/hooks/ses", json=message).status_code == 403
    assert nothing(engine)
    net.down = True
    assert post_sns(hooks, sns({}, SigningCertURL=CERTIFICATE_URL.replace("-1.pem", "-2.pem"))) == 503


# Postmark


def postmark(hooks: httpx.Client, event: Any, login: tuple[str, str] = ("hook", "pass word")) -> int:
    return hooks.post("/hooks/postmark", json=event, auth=login).status_code


def pm(kind: str, **further: Any) -> dict[str, Any]:
    return {"RecordType": kind, "MessageID": "883953f4", "Email": address(101), "Metadata": marks()} | further


POSTMARK = [
    (pm("Delivery", DeliveredAt="2026-11-22T08:33:54.9070259Z"), {(101, "delivered", None)}),
    (pm("Bounce", Type="HardBounce", Details="smtp;550 5.1.1 does not exist"), {(101, "bounced", "hard")}),
    (pm("Bounce", Type="SoftBounce", Details="smtp;552 5.2.2 mailbox full"), {(101, "bounced", "full")}),
    (pm("Bounce", Type="SoftBounce", Details="smtp;550 5.7.1 no"), {(101, "bounced", "soft")}),
    (pm("Bounce", Type="Blocked", Details="smtp;550 5.1.1 user unknown"), {(101, "bounced", "policy")}),
    (pm("Bounce", Type="AutoResponder"), set()),
    (pm("Bounce", Type="Transient"), set()),
    (pm("SpamComplaint", Type="SpamComplaint"), {(101, "complained", None)}),
    (
        pm("SubscriptionChange", SuppressSending=True, SuppressionReason="ManualSuppression"),
        {(101, "unsubscribed", None)},
    ),
    (pm("SubscriptionChange", SuppressSending=True, SuppressionReason="HardBounce"), set()),
    (pm("Open"), set()),
    (pm("Click"), set()),
]


def test_postmarks_words(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    for event, wanted in POSTMARK:
        assert postmark(hooks, event) == 200
        assert events(engine) == wanted, event
        with writing(engine) as connection:
            connection.execute(message_events.delete())


def test_postmark_needs_the_login(hooks: httpx.Client, engine: Engine, ids: list[int]) -> None:
    event = pm("SpamComplaint")
    for login in (("hook", "wrong"), ("", "")):
        assert postmark(hooks, event, login) == 401
    for header in ("", "Basic", "Basic !", "Bearer aG9vazpwYXNzIHdvcmQ="):
        answer = hooks.post("/hooks/postmark", json=event, headers={"Authorization": header})
        assert (answer.status_code, "Basic" in answer.headers["www-authenticate"]) == (401, True)
    assert nothing(engine)


# WhatsApp


def whatsapp(
    hooks: httpx.Client, *changes: Mapping[str, Any], secret: str = "metasecret", number: str = ""
) -> int:
    metadata = {"phone_number_id": number or WHATSAPP["phone_number_id"]}
    entry = {"changes": [{"field": "messages", "value": {"metadata": metadata, **change}} for change in changes]}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hooks.post("/hooks/whatsapp", content=body, headers={"X-Hub-Signature-256": signature}).status_code


def status(name: str, *, message_id: int | None = 101, **further: Any) -> dict[str, Any]:
    keyed = {"biz_opaque_callback_data": note_key(SECRET, message_id)} if message_id else {}
    one = {
        "id": "wamid.X",
        "status": name,
        "timestamp": "1795338000",
        "recipient_id": PHONE[1:],
        **keyed,
        **further,
    }
    return {"statuses": [one]}


@pytest.fixture
def notes(engine: Engine, ids: list[int]) -> list[int]:
    """The same messages, by WhatsApp."""
    with writing(engine) as connection:
        values = {"channel": "whatsapp", "address_hash": phone_hash(SECRET, PHONE)}
        connection.execute(update(messages).values(values))
        connection.execute(update(messages).where(messages.c.message_id == 102).values(provider_id="wamid.Y"))
    return ids


def test_whatsapps_statuses(hooks: httpx.Client, engine: Engine, notes: list[int]) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.message_id == 101).values(state="unknown"))
    assert whatsapp(hooks, status("sent")) == 200
    assert next(row.state for row in rows(engine, messages) if row.message_id == 101) == "accepted"
    assert rows(engine, message_events) == []
    assert whatsapp(hooks, status("read"), status("delivered"), status("read")) == 200
    assert whatsapp(hooks, status("delivered", message_id=None, id="wamid.Y")) == 200
    assert events(engine) == {(101, "delivered", None), (101, "opened", None), (102, "delivered", None)}
    assert [each.detail for each in rows(engine, message_events) if each.kind == "opened"] == [{"read": True}]


@pytest.mark.parametrize(
    ("code", "bounce", "bans"),
    [
        (131026, "hard", {("hard_bounce", "all")}),
        (131049, "policy", set()),
        (131050, "policy", {("unsubscribe", "marketing")}),
        (132001, "content", set()),
        (999999, "unknown", set()),
    ],
)
def test_what_whatsapp_did_not_deliver(
    hooks: httpx.Client, engine: Engine, notes: list[int], code: int, bounce: str, bans: set[tuple[str, str]]
) -> None:
    error = {"code": code, "title": f"could not reach {PHONE}", "error_data": {"details": "..."}}
    assert whatsapp(hooks, status("failed", errors=[error])) == 200
    [event] = rows(engine, message_events)
    assert (event.kind, event.detail["class"], event.detail["status"]) == ("bounced", bounce, str(code))
    assert "6505551234" not in event.detail["text"]
    assert {(ban.reason, ban.purpose) for ban in rows(engine, suppressions)} == bans
    assert {(ban.channel, ban.address_hash) for ban in rows(engine, suppressions)} <= {
        ("whatsapp", phone_hash(SECRET, PHONE))
    }


def test_a_person_writes_and_wants_no_marketing(hooks: httpx.Client, engine: Engine, clock: FakeClock) -> None:
    wrote = {"messages": [{"from": PHONE[1:], "id": "wamid.in", "timestamp": "1795338000", "type": "text"}]}
    preference = {"wa_id": PHONE[1:], "category": "marketing_messages", "timestamp": 1795338000}
    for _ in range(2):
        assert whatsapp(hooks, wrote, {"user_preferences": [preference | {"value": "stop"}]}) == 200
    assert (
        whatsapp(hooks, {"user_preferences": [preference | {"value": "resume", "wa_id": "491711234567"}]}) == 200
    )
    system = {"type": "user_preference_changed", "marketing": "stop"}
    by_message = {"from": "491711234567", "id": "wamid.s", "type": "system", "system": system}
    assert whatsapp(hooks, {"messages": [by_message]}) == 200
    [inbound] = rows(engine, inbound_messages)
    assert (inbound.channel, inbound.address_hash) == ("whatsapp", phone_hash(SECRET, PHONE))
    assert {(ban.address_hash, ban.channel, ban.reason, ban.purpose) for ban in rows(engine, suppressions)} == {
        (phone_hash(SECRET, number), "whatsapp", "unsubscribe", "marketing") for number in (PHONE, "+491711234567")
    }


def test_metas_signature_and_question(hooks: httpx.Client, engine: Engine, notes: list[int]) -> None:
    assert whatsapp(hooks, status("read"), secret="another") == 403
    assert hooks.post("/hooks/whatsapp", json={}).status_code == 403
    assert whatsapp(hooks, status("read"), number="another number") == 200
    assert nothing(engine)
    asked = {"hub.mode": "subscribe", "hub.verify_token": "verify me", "hub.challenge": "1158201444"}
    answer = hooks.get("/hooks/whatsapp", params=asked)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    for wrong in ({"hub.verify_token": "no"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": ""}):
        assert hooks.get("/hooks/whatsapp", params=asked | wrong).status_code == 403


# All of them


def test_services_without_a_key_are_not_there(engine: Engine, environment: Environment, config: Config) -> None:
    with serve(create_app(engine, environment, config, env={})) as url:
        for service in ("sendgrid", "mailgun", "ses", "postmark", "whatsapp"):
            assert httpx.post(f"{url}/hooks/{service}", json={}).status_code == 404
        assert httpx.get(f"{url}/hooks/whatsapp", params={"hub.verify_token": ""}).status_code == 404


def test_a_variable_that_is_not_set_is_told_and_the_service_not_there(
    engine: Engine, environment: Environment, configured: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(create_app(engine, environment, configured, env={})) as url:
        assert httpx.post(f"{url}/hooks/mailgun", json={}).status_code == 404
    assert "webhooks.mailgun_signing_key_env is MAILGUN_KEY, which is not set" in caplog.text
    with pytest.raises(ConfigError, match="holds no verification key"):
        create_app(engine, environment, configured, env=ENV | {"SENDGRID_KEY": "no key"})


def test_bodies_are_bounded_and_no_json_is_no_crash(hooks: httpx.Client, engine: Engine) -> None:
    assert hooks.post("/hooks/postmark", content=b"x" * (MAX_BODY_BYTES + 1)).status_code in (401, 413)
    large = json.dumps({"RecordType": "Open", "x": "y" * 100_000}).encode()
    for body, code in (
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b"null", 200),
        (b"[1]", 200),
        (large, 200),
    ):
        answer = hooks.post("/hooks/postmark", content=body, auth=("hook", "pass word"))
        assert answer.status_code == code, body[:10]
    too_large = hooks.post("/hooks/postmark", content=b" " * (MAX_BODY_BYTES + 1), auth=("hook", "pass word"))
    assert too_large.status_code == 413
    assert [each.kind for each in rows(engine, unmatched_reports)] == ["unclear"]


def test_while_the_database_is_away_the_service_is_told_to_come_again(
    hooks: httpx.Client, engine: Engine, ids: list[int]
) -> None:
    with writing(engine) as connection:
        connection.execute(text("alter table message_events rename to gone"))
    assert postmark(hooks, pm("SpamComplaint")) == 503
    with writing(engine) as connection:
        connection.execute(text("alter table gone rename to message_events"))
    assert postmark(hooks, pm("SpamComplaint")) == 200
    assert events(engine) == {(101, "complained", None)}


def test_signatures_as_they_are_written_down_elsewhere(shared: Path) -> None:
    vectors = json.loads((shared / "specs" / "signature-vectors.json").read_text())
    meta, mailgun = vectors["meta_webhook"], vectors["mailgun_webhook"]
    assert signatures.is_meta(meta["app_secret"], meta["X-Hub-Signature-256"], meta["raw_body"].encode())
    assert signatures.is_mailgun(
        mailgun["signing_key"], mailgun["timestamp"], mailgun["token"], mailgun["signature"]
    )


def test_the_services_own_samples(
    hooks: httpx.Client, engine: Engine, ids: list[int], shared: Path, clock: FakeClock
) -> None:
    """Their words are known, and messages are found by the ids that the samples have."""
    found = {
        path.stem: json.loads(path.read_text())
        for path in sorted((shared / "specs" / "esp-events").glob("*.json"))
    }
    assert len(found) == 4
    ours = marks()
    assert (
        sendgrid(hooks, *({**event, "email": address(101), **ours} for event in found["sendgrid-event-webhook"]))
        == 200
    )
    for number, sample in enumerate(found["mailgun-webhooks"]):
        event = sample["event-data"] | {"user-variables": ours, "recipient": address(101)}
        body = mailgun_body(event, at=clock.now.timestamp(), token=str(number))
        assert hooks.post("/hooks/mailgun", json=body).status_code == 200
    for number, event in enumerate(found["ses-events"]["events"]):
        event["mail"]["tags"] = {"send_id": ["101"]}
        assert post_sns(hooks, sns(event, MessageId=str(number))) == 200
    for samples in json.loads((shared / "specs" / "postmark" / "webhook-payloads.json").read_text()).values():
        for event in samples:
            named = {name: address(101) for name in ("Email", "Recipient") if name in event}
            assert postmark(hooks, event | named | {"Metadata": ours}) == 200
    strays = {(each.source, each.kind, each.detail.get("why")) for each in rows(engine, unmatched_reports)}
    assert strays <= {("ses", "bounced", "is about another address than the message went to")}
    assert {(kind, bounce) for _, kind, bounce in events(engine)} >= {
        ("delivered", None), ("bounced", "hard"), ("complained", None), ("unsubscribed", None),
    }  # fmt: skip
    with writing(engine) as connection:
        first = next(row._asdict() for row in rows(engine, messages) if row.message_id == 101)
        note = {"message_id": 500, "channel": "whatsapp", "provider_id": "wamid.X", "address_hash": "h"}
        connection.execute(insert(messages).values(first | note))
    for payload in found["whatsapp-status-webhooks"]:
        for change in payload["entry"][0]["changes"]:
            assert whatsapp(hooks, change["value"]) == 200
    kinds = sorted((kind, str(bounce)) for message_id, kind, bounce in events(engine) if message_id == 500)
    assert kinds == [("bounced", "policy"), ("delivered", "None"), ("opened", "None")]
