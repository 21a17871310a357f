"""Who sent a webhook: each service's own signature, over the bytes as they came."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from lifecycle.errors import ConfigError

_SNS_HOST = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(\.cn)?")
_SNS_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {"1": hashes.SHA1, "2": hashes.SHA256}
_SNS_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
_SNS_SIGNED["UnsubscribeConfirmation"] = _SNS_SIGNED["SubscriptionConfirmation"]


def sendgrid_key(text: str) -> ec.EllipticCurvePublicKey:
    """The verification key as SendGrid shows it: DER in base64, or PEM. Raises ConfigError."""
    try:
        raw = text.strip()
        key = load_pem_public_key(raw.encode()) if "BEGIN" in raw else load_der_public_key(base64.b64decode(raw))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(
            "config/channels.yaml: webhooks.sendgrid_public_key_env: its variable holds no verification key; copy "
            "it from SendGrid's event webhook settings, as it stands there"
        )
    return key


def is_sendgrid(key: ec.EllipticCurvePublicKey, headers: Mapping[str, str], body: bytes) -> bool:
    """ECDSA over the time and the body (twilio.com, "Event Webhook Security Features", read 2026-11-24)."""
    signature = _decoded(headers.get("x-twilio-email-event-webhook-signature", ""))
    timestamp = headers.get("x-twilio-email-event-webhook-timestamp", "")
    if signature is None or not timestamp:
        return False
    try:
        key.verify(signature, timestamp.encode("latin-1", "replace") + body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def is_mailgun(key: str, timestamp: str, token: str, signature: str) -> bool:
    """HMAC-SHA256 over time and token; the event itself is not signed (documentation.mailgun.com, "Securing
    Webhooks", read 2026-11-24)."""
    wanted = hmac.new(key.encode(), f"{timestamp}{token}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
    return _equal(wanted, signature)


def is_meta(secret: str, header: str, body: bytes) -> bool:
    """X-Hub-Signature-256 (developers.facebook.com, "Webhooks: Validating Payloads", read 2026-11-24)."""
    return _equal(f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}", header)


def is_login(login: str, header: str) -> bool:
    """HTTP Basic (RFC 7617). login: `user:password`."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "basic" and hmac.compare_digest(login.encode(), _decoded(given.strip()) or b"")


def is_sns_address(url: str) -> bool:
    """On a host of SNS itself: under amazonaws.com anybody has hosts, S3 buckets for example."""
    try:
        parts = urlsplit(url)
        plain = parts.port is None and parts.username is None and parts.password is None
    except ValueError:
        return False
    return parts.scheme == "https" and plain and _SNS_HOST.fullmatch(parts.hostname or "") is not None


def is_sns(certificate: bytes, message: Mapping[str, Any]) -> bool:
    """certificate: PEM (docs.aws.amazon.com/sns, "Verifying the signatures", read 2026-11-24)."""
    algorithm = _SNS_HASHES.get(str(message.get("SignatureVersion")))
    signature = _decoded(str(message.get("Signature", "")))
    names = _SNS_SIGNED.get(str(message.get("Type")))
    if algorithm is None or signature is None or names is None:
        return False
    text = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(signature, text.encode("utf-8", "replace"), padding.PKCS1v15(), algorithm())
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _equal(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
