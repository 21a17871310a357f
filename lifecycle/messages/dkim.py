"""DKIM signatures (RFC 6376): rsa-sha256, relaxed/relaxed, one per mail.

RSA only: Microsoft and Yahoo do not check Ed25519, and a second signature that fails can cost DMARC
(deliverability notes, 1). Not dkimpy, because that multiplies in Python: 60 mails a second where this signs 1,000.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lifecycle.errors import ConfigError, ContentError
from lifecycle.settings.channels import Dkim
from lifecycle.settings.environment import ROOT

SIGNED = (
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "mime-version",
    "content-type",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-id",
    "feedback-id",
    "x-send-id",
)
"""Headers that are signed where they are there. RFC 8058 wants both List-Unsubscribe headers among them."""

MIN_BITS = 2048

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"(?:_?{_LABEL}\.)*{_LABEL}")
_WSP_RUN = re.compile(rb"[ \t]+")
_LINE = 72


class Signer:
    """Signs for one domain. `pem`: a private RSA key of 2048 bits or more, not encrypted. Raises ConfigError."""

    def __init__(self, domain: str, selector: str, pem: bytes) -> None:
        for field, name in (("domain", domain), ("selector", selector)):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f'config/channels.yaml: dkim.{field} "{name}" is not a name in ASCII, as DNS has it'
                )
        self._key = _private_key(domain, pem)
        self._tags = f"v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d={domain}; s={selector};\r\n"

    def sign(self, content: bytes, *, at: datetime | None = None) -> bytes:
        """The DKIM-Signature header field, folded and with CRLF at its end, to be put in front of the mail.

        content: the whole mail with CRLF line ends. at: when it is signed, aware; left out, the same mail gets the
        same signature. Each header is signed as often as it is there, and From once more, so that nobody can add
        another. Raises ContentError where the mail has no From.
        """
        head, _, body = content.partition(b"\r\n\r\n")
        fields = _signed_fields(head)
        if not any(name == "from" for name, _ in fields):
            raise ContentError("the mail has no From, which a DKIM signature must cover")
        body_hash = base64.b64encode(hashlib.sha256(relaxed_body(body)).digest()).decode()
        time = "" if at is None else f" t={int(at.timestamp())};\r\n"
        names = ":".join([*(name for name, _ in fields), "from"])
        unsigned = f"DKIM-Signature: {self._tags}{time}{_folded('h=', names, ':')};\r\n bh={body_hash};\r\n b="
        covered = b"\r\n".join([*(value for _, value in fields), relaxed_field(unsigned.encode("ascii"))])
        signature = self._key.sign(covered, padding.PKCS1v15(), hashes.SHA256())
        return f"{unsigned}{_wrapped(base64.b64encode(signature).decode())}\r\n".encode("ascii")


def load_signer(settings: Dkim, env: Mapping[str, str]) -> Signer:
    """With the key from the variable or file that the settings name. A file's path counts from the project's
    folder; in a variable the line breaks may be written `\\n`. Raises ConfigError where there is no such key."""
    if settings.key_env:
        pem = env.get(settings.key_env, "").replace("\\n", "\n").encode()
        if not pem.strip():
            raise _problem(settings.domain, f"{settings.key_env} is not set; put the private key there, as PEM")
    else:
        path = ROOT / Path(settings.key_file).expanduser()
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise _problem(settings.domain, f"key_file {path} cannot be read: {error.strerror}") from None
    return Signer(settings.domain, settings.selector, pem)


def relaxed_field(field: bytes) -> bytes:
    """One header field without the end of its line, unfolded as RFC 6376, 3.4.2 wants it."""
    name, _, value = field.partition(b":")
    value = _WSP_RUN.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376, 3.4.4."""
    if b"\t" in body or b"  " in body or b" \r\n" in body or body.endswith(b" "):
        body = _WSP_RUN.sub(b" ", body).replace(b" \r\n", b"\r\n").removesuffix(b" ")
    stripped = _without_empty_end(body)
    return stripped + b"\r\n" if stripped else b""


def _without_empty_end(body: bytes) -> bytes:
    end = len(body)
    while body.endswith(b"\r\n", 0, end):
        end -= 2
    return body[:end]


def _signed_fields(head: bytes) -> list[tuple[str, bytes]]:
    """Name and relaxed form of the fields to be signed, in the order of SIGNED; of several with one name the last
    first, as a verifier takes them (RFC 6376, 5.4.2)."""
    found: dict[str, list[bytes]] = {}
    for field in _fields(head):
        name = field.partition(b":")[0].rstrip(b" \t").lower().decode("ascii", "replace")
        found.setdefault(name, []).append(field)
    return [(name, relaxed_field(field)) for name in SIGNED for field in reversed(found.get(name, []))]


def _fields(head: bytes) -> Iterator[bytes]:
    """Each with the lines on which it goes on."""
    field: list[bytes] = []
    for line in head.split(b"\r\n"):
        if field and not line.startswith((b" ", b"\t")):
            yield b"\r\n".join(field)
            field = []
        field.append(line)
    if field:
        yield b"\r\n".join(field)


def _folded(tag: str, text: str, separator: str) -> str:
    """Behind separators only."""
    lines = [f" {tag}"]
    for piece in re.findall(rf"[^{separator}]+{separator}?", text):
        if len(lines[-1]) + len(piece) > _LINE:
            lines.append(" ")
        lines[-1] += piece
    return "\r\n".join(lines)


def _wrapped(text: str) -> str:
    return "\r\n ".join(text[start : start + _LINE] for start in range(0, len(text), _LINE))


def _private_key(domain: str, pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise _problem(domain, "the key is encrypted; give it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _problem(domain, "the key is not a private key as PEM (-----BEGIN PRIVATE KEY-----)") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _problem(domain, "the key is not an RSA key, the only kind that all mailbox providers check")
    if key.key_size < MIN_BITS:
        raise _problem(domain, f"the key has {key.key_size} bits; it needs {MIN_BITS}: openssl genrsa {MIN_BITS}")
    return key


def _problem(domain: str, problem: str) -> ConfigError:
    return ConfigError(f"config/channels.yaml: dkim of {domain}: {problem}")
