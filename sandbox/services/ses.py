"""Amazon SES, API v2, on loopback: SendEmail and SendBulkEmail, checked against Amazon's own model of them.

Signatures (AWS Signature Version 4) are checked by hand. A place for which there is no value, and whatever else of
Handlebars an inline template does not have, is a rendering failure: taken, but never delivered.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.services.keeping import Conduct, Delivered, Misbehaving, Problem, address_of, is_address

_PEOPLE = 50
_LARGEST, _LARGEST_BULK, _LARGEST_DATA = 40_000_000, 1_000_000, 262_144
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[!-9;-@A-~]{1,126}"), re.compile(r"[ -~]{1,995}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_PLACE = re.compile(r"(\\?)\{\{(\{?)\s*([^{}]*?)\s*(\}?)\}\}")
_MODEL = ServiceModel(Loader().load_service_model("sesv2", "service-2"))


class Ses:
    """`tokens`: the session token that a key needs, if it is a temporary one."""

    def __init__(
        self, access: str, secret: str, region: str, conduct: Conduct | None = None, *, token: str = ""
    ) -> None:
        self.delivered: list[Delivered] = []
        self.not_rendered: list[str] = []
        self.conduct = conduct or Conduct()
        self._access, self._secret, self._region, self._token = access, secret, region, token
        self.app = Starlette(
            routes=[
                Route("/v2/email/outbound-emails", self._one, methods=["POST"]),
                Route("/v2/email/outbound-bulk-emails", self._bulk, methods=["POST"]),
            ],
            middleware=[Middleware(Misbehaving, conduct=self.conduct)],
            exception_handlers={Problem: Problem.answer},
        )

    async def _one(self, request: Request) -> Response:
        asked = await self._read(request, "SendEmail", _LARGEST)
        (to,) = asked["Destination"]["ToAddresses"]
        message = asked["Content"]["Simple"]
        _check_headers(message.get("Headers", ()))
        self._check(asked, to, asked.get("EmailTags", ()))
        if said := self.conduct.refuses(to.lower()):
            name, _, words = said.partition("|")
            raise _no(400, name, words)
        bodies = {name: body["Data"] for name, body in message["Body"].items()}
        headers = message.get("Headers", ())
        number = self._take(asked, to, message["Subject"]["Data"], bodies, headers, asked.get("EmailTags", ()))
        return JSONResponse({"MessageId": number})

    async def _bulk(self, request: Request) -> Response:
        asked = await self._read(request, "SendBulkEmail", _LARGEST_BULK)
        entries = asked["BulkEmailEntries"]
        if not 1 <= len(entries) <= _PEOPLE:
            raise _no(400, "BadRequestException", f"The number of destinations is not between 1 and {_PEOPLE}")
        return JSONResponse({"BulkEmailEntryResults": [self._entry(asked, entry) for entry in entries]})

    def _entry(self, asked: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, str]:
        (to,) = entry["Destination"]["ToAddresses"]
        tags, headers = entry.get("ReplacementTags", ()), entry.get("ReplacementHeaders", ())
        replacement = entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"]
        template = asked["DefaultContent"]["Template"]
        if said := self.conduct.refuses(to.lower()):
            status, _, words = said.partition("|")
            return {"Status": status, "Error": words}
        try:
            self._check(asked, to, tags)
            _check_headers(headers)
            if len(replacement) > _LARGEST_DATA:
                raise _no(400, "BadRequestException", "The template data is too large")
        except Problem as problem:
            return {"Status": "INVALID_PARAMETER", "Error": problem.body["message"]}
        values = {**json.loads(template.get("TemplateData", "{}")), **json.loads(replacement)}
        try:
            parts = {name: _filled(part, values) for name, part in template["TemplateContent"].items()}
        except _NotRendered as failure:
            self.not_rendered.append(str(failure))
            return {"Status": "SUCCESS", "MessageId": secrets.token_hex(30)}
        subject = parts.pop("Subject")
        return {"Status": "SUCCESS", "MessageId": self._take(asked, to, subject, parts, headers, tags)}

    def _take(
        self,
        asked: Mapping[str, Any],
        to: str,
        subject: str,
        bodies: Mapping[str, str],
        headers: Sequence[Mapping[str, str]],
        tags: Sequence[Mapping[str, str]],
    ) -> str:
        number = secrets.token_hex(30)
        self.delivered.append(
            Delivered(
                number=number,
                to=to,
                sender=address_of(asked["FromEmailAddress"]),
                reply_to=", ".join(asked.get("ReplyToAddresses", ())),
                subject=subject,
                html=bodies.get("Html", ""),
                text=bodies.get("Text", ""),
                headers=tuple((each["Name"], each["Value"]) for each in headers),
                marks={tag["Name"]: tag["Value"] for tag in tags},
                kept={name: asked.get(name) for name in ("FromEmailAddress", "ConfigurationSetName",
                                                         "ConfigurationOverrides")},
            )
        )  # fmt: skip
        return number

    def _check(self, asked: Mapping[str, Any], to: str, tags: Sequence[Mapping[str, str]]) -> None:
        if not asked["FromEmailAddress"].isascii() or not is_address(address_of(asked["FromEmailAddress"])):
            raise _no(400, "BadRequestException", "Missing final '@domain'")
        if not to.isascii() or not is_address(to):
            raise _no(400, "BadRequestException", "Missing final '@domain'")
        for tag in tags:
            if not (_TAG.fullmatch(tag["Name"]) and _TAG.fullmatch(tag["Value"])):
                raise _no(400, "BadRequestException", "Invalid tag")

    async def _read(self, request: Request, operation: str, largest: int) -> dict[str, Any]:
        raw = await request.body()
        self._admit(request, raw)
        if len(raw) > largest:
            raise _no(413, "RequestEntityTooLarge", "The request is too large")
        asked: dict[str, Any] = json.loads(raw)
        report = ParamValidator().validate(asked, _MODEL.operation_model(operation).input_shape)
        if report.has_errors():
            raise _no(400, "BadRequestException", report.generate_report())
        return asked

    def _admit(self, request: Request, raw: bytes) -> None:
        """docs.aws.amazon.com/general/latest/gr, "Create a signed AWS API request"."""
        named = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/[^/]+/ses/aws4_request), SignedHeaders=([^,]+), "
            r"Signature=([0-9a-f]{64})",
            request.headers.get("authorization", ""),
        )
        if named is None:
            raise _no(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        access, scope, signed, signature = named.groups()
        day, region, *_ = scope.split("/")
        if access != self._access or request.headers.get("x-amz-security-token", "") != self._token:
            raise _no(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in signed.split(";"))
        canonical = "\n".join(
            (request.method, request.url.path, request.url.query, headers, signed, sha256(raw).hexdigest())
        )
        stamp = request.headers["x-amz-date"]
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self._secret}".encode()
        for part in (day, region, "ses", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        expected = hmac.new(key, text.encode(), "sha256").hexdigest()
        if (
            region != self._region
            or "host" not in signed.split(";")
            or not hmac.compare_digest(expected, signature)
        ):
            raise _no(403, "SignatureDoesNotMatch", "The request signature we calculated does not match")


class _NotRendered(Exception):
    pass


def _filled(part: str, values: Mapping[str, str]) -> str:
    def fill(place: re.Match[str]) -> str:
        escaped, opened, name, closed = place.groups()
        if escaped:
            return place[0][1:]
        if opened != closed.replace("}", "{") or name not in values:
            raise _NotRendered(f"{place[0]} has no value")
        return values[name]

    if "{{" in _PLACE.sub("", part):
        raise _NotRendered("a place that is not closed")
    return _PLACE.sub(fill, part)


def _check_headers(headers: Sequence[Mapping[str, str]]) -> None:
    if len(headers) > 15:
        raise _no(400, "BadRequestException", "Too many headers")
    for each in headers:
        if not (_HEADER_NAME.fullmatch(each["Name"]) and _HEADER_VALUE.fullmatch(each["Value"])):
            raise _no(400, "BadRequestException", "Invalid header")


def _no(status: int, name: str, message: str) -> Problem:
    return Problem(status, {"message": message}, {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/"})
