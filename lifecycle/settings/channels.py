"""The shape of `config/channels.yaml`: ways out, one section each, told apart by `kind`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lifecycle.settings.models import Mailbox, Name, Purpose, Section

PLATFORM_KINDS = frozenset(
    {"aliexpress_messages", "amazon_solicitations", "amazon_messaging", "ebay_messages", "tiktok_engagement"}
)
"""Ways out inside a marketplace, to the buyer's account there: the platform itself asks buyers what they want."""


class Way(Section):
    """What every channel has."""

    name: Name
    kind: str
    shops: tuple[Name, ...] | None = Field(default=None, description="whom it sends for; leave out for every shop")
    cost: Decimal = Field(default=Decimal(0), ge=0, description="of one message, base currency")
    batch_size: int = Field(default=1000, ge=1, le=10_000, description="messages in one Prefect task")
    lease_seconds: int = Field(default=120, ge=10, description="a silent process loses its claim after it")
    max_attempts: int = Field(default=5, ge=1)
    expire_hours: int = Field(
        default=24, ge=1, le=24, description="marketing not sent so long after it was reserved is dropped"
    )
    retry_minutes: float = Field(
        default=15, ge=0, description="wait after a temporary refusal, doubled each time, give or take a fifth"
    )
    per_second: float | None = Field(
        default=None, gt=0, description="at most so many messages a second over all processes; null: no limit"
    )
    timeout_seconds: float = Field(default=30, gt=0, description="the peer must have answered by then")


class Smtp(Section):
    host: str
    port: int = Field(gt=0, le=65535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: str = ""
    password_env: str = Field(
        default="", description="environment variable, or Prefect Secret block: TERN_X or tern-x"
    )
    timeout_seconds: float = Field(default=30, gt=0)
    hello_name: str = "localhost"


class EmailService(Section):
    """An e-mail service's own HTTP interface. Each can also be used by SMTP."""

    service: Literal["sendgrid", "mailgun", "ses", "postmark"]
    key_env: str = Field(description="its key; of SES access key id:secret; environment variable or Secret block")
    url: str = Field(
        default="", description="instead of the service's usual address, for example of its EU region"
    )
    domain: str = Field(default="", description="Mailgun: the sending domain")
    region: str = Field(default="", description="SES: for example eu-central-1")
    stream: str = Field(default="", description="Postmark: message stream; for marketing a broadcast")
    configuration_set: str = Field(default="", description="SES: publishes its events")
    timeout_seconds: float = Field(default=30, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.service == "mailgun" and not self.domain:
            raise ValueError("mailgun needs domain, the sending domain")
        if self.service == "ses" and not self.region:
            raise ValueError("ses needs region, for example eu-central-1")
        return self


class Dkim(Section):
    """An RSA-2048 key with which mails are signed. Leave it out where the relay or service signs."""

    domain: str = Field(min_length=1, description="aligned with From, for example brand.example")
    selector: str = Field(min_length=1, description="the public key is at selector._domainkey.domain")
    key_env: str = Field(default="", description="environment variable or Secret block with the PEM")
    key_file: str = Field(default="", description="or a file with it")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if bool(self.key_env) == bool(self.key_file):
            raise ValueError("give exactly one of key_env and key_file")
        return self


class EmailAccount(Section):
    """A sender's account at a relay or service; the first that fits a mail sends it."""

    name: Name
    shops: tuple[Name, ...] | None = Field(default=None, description="leave out for every shop")
    locales: tuple[str, ...] | None = Field(default=None, description="leave out for every language")
    purposes: tuple[Purpose, ...] | None = Field(default=None, description="leave out for every purpose")
    smtp: Smtp | None = None
    api: EmailService | None = None
    dkim: Dkim | None = None
    bounce_domain: str = Field(default="", description="of the envelope sender b+TOKEN@; else the channel's")
    sender_name: str = Field(default="", description="instead of the shop's")
    sender_address: Mailbox | None = Field(default=None, description="instead of the shop's")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.smtp is None) == (self.api is None):
            raise ValueError("give exactly one of smtp and api")
        return self

    def fits(self, shop: str, locale: str, purpose: str) -> bool:
        wanted = ((self.shops, shop), (self.locales, locale), (self.purposes, purpose))
        return all(of is None or value in of for of, value in wanted)


class LaneLimits(Section):
    """How fast one mailbox provider may be written to; what is left out is as in settings/mailboxes.yaml."""

    connections: int | None = Field(default=None, ge=1)
    per_connection: int | None = Field(default=None, ge=1, description="mails, then a new connection")
    per_second: float | None = Field(default=None, gt=0)


class EmailChannel(Way):
    kind: Literal["email"]
    smtp: Smtp | None = None
    api: EmailService | None = None
    dkim: Dkim | None = None
    bounce_domain: str = Field(description="envelope sender is b+TOKEN@ this domain")
    accounts: tuple[EmailAccount, ...] = Field(default=(), description="others before this one, first fit sends")
    mailbox_providers: dict[str, LaneLimits] = Field(
        default_factory=dict, description="limits by provider: google, yahoo, microsoft, …, other"
    )
    look_up_providers: bool = Field(
        default=False, description="ask DNS who runs the mailboxes of domains that are not in the list"
    )
    max_bounce_share: float = Field(default=0.05, gt=0, lt=1, description="hard bounces above it stop a lane")
    max_complaint_share: float = Field(default=0.001, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.smtp is None) == (self.api is None):
            raise ValueError("give exactly one of smtp and api")
        names = [account.name for account in self.accounts]
        if len({*names, MAIN}) <= len(names):
            raise ValueError(f'accounts need names of their own, and none may be "{MAIN}"')
        return self

    @property
    def main(self) -> EmailAccount:
        """The channel itself as an account."""
        return EmailAccount(
            name=MAIN, smtp=self.smtp, api=self.api, dkim=self.dkim, bounce_domain=self.bounce_domain
        )

    def account(self, shop: str, locale: str, purpose: str) -> EmailAccount:
        """The account that sends such a mail."""
        return next((each for each in self.accounts if each.fits(shop, locale, purpose)), self.main)


MAIN = "main"


class WhatsAppChannel(Way):
    """WhatsApp Business Cloud API: one telephone number."""

    kind: Literal["whatsapp"]
    url: str = "https://graph.facebook.com/v23.0"
    phone_number_id: str = Field(min_length=1)
    token_env: str
    app_secret_env: str = Field(default="", description="signs Meta's webhooks")
    verify_token_env: str = Field(default="", description="what Meta repeats when the webhook is set up")
    marketing_endpoint: bool = Field(default=False, description="marketing goes to /marketing_messages")
    per_second: float | None = Field(default=80, gt=0, description="Meta's limit per number; 20 in coexistence")


class MessengerChannel(Way):
    """Facebook Messenger: one page."""

    kind: Literal["messenger"]
    url: str = "https://graph.facebook.com/v25.0"
    page_id: str = Field(min_length=1)
    token_env: str
    app_secret_env: str = Field(default="", description="signs Meta's webhooks")
    verify_token_env: str = Field(default="", description="what Meta repeats when the webhook is set up")


class AliExpressChannel(Way):
    """AliExpress station messages of one seller account."""

    kind: Literal["aliexpress_messages"]
    url: str = "https://api-sg.aliexpress.com"
    app_key_env: str
    app_secret_env: str
    token_env: str = Field(description="access token of the seller account")


class _Amazon(Way):
    url: str = Field(
        default="https://sellingpartnerapi-na.amazon.com", description="eu and fe have addresses of their own"
    )
    login_url: str = "https://api.amazon.com/auth/o2/token"
    client_id_env: str
    client_secret_env: str
    refresh_token_env: str
    marketplace_id: str = Field(min_length=1, description="for example ATVPDKIKX0DER")


class AmazonSolicitationsChannel(_Amazon):
    """Amazon's own review request: no text of ours, once per order."""

    kind: Literal["amazon_solicitations"]
    per_second: float | None = Field(default=1, gt=0, description="Amazon's limit, with a burst of 5")


class AmazonMessagingChannel(_Amazon):
    """Amazon's permitted messages about an order. The template says which: message_type."""

    kind: Literal["amazon_messaging"]
    per_second: float | None = Field(default=1, gt=0, description="Amazon's limit, with a burst of 5")


class EbayChannel(Way):
    """eBay member messages of one seller account."""

    kind: Literal["ebay_messages"]
    url: str = "https://api.ebay.com"
    client_id_env: str
    client_secret_env: str
    refresh_token_env: str


class TikTokChannel(Way):
    """TikTok Shop customer engagement of one shop."""

    kind: Literal["tiktok_engagement"]
    url: str = "https://open-api.tiktokglobalshop.com"
    app_key_env: str
    app_secret_env: str
    token_env: str
    shop_cipher: str = Field(min_length=1)


class WebhookChannel(Way):
    """Anything else: signed JSON, many messages in one request, one answer for each."""

    kind: Literal["webhook"]
    url: str
    secret_env: str = Field(description="signs each request: HMAC-SHA256 over time and body")
    per_request: int = Field(default=100, ge=1, le=1000)


AnyChannel = Annotated[
    EmailChannel
    | WhatsAppChannel
    | MessengerChannel
    | AliExpressChannel
    | AmazonSolicitationsChannel
    | AmazonMessagingChannel
    | EbayChannel
    | TikTokChannel
    | WebhookChannel,
    Field(discriminator="kind"),
]


class Tracking(Section):
    base_url: str = Field(description="where recipients reach the tracking web app")
    scanner_seconds: float = Field(default=2.0, ge=0, description="a click sooner after sending is a machine's")
    burst_links: int = Field(default=3, ge=2, description="so many different links …")
    burst_seconds: float = Field(default=2.0, gt=0, description="… within so long are a scanner's")
    attribution_days: int = Field(default=7, gt=0, description="orders so long after a click count")


class Bounces(Section):
    """How reports about mails come back. VERP addresses are b+TOKEN@ and u+TOKEN@ the bounce domain."""

    lmtp_host: str = Field(default="127.0.0.1", description="where `tern bounces` listens for the mail server")
    lmtp_port: int | None = Field(default=None, gt=0, le=65535, description="null: no LMTP")
    imap_host: str = Field(default="", description="or a mailbox to be read; empty: none")
    imap_port: int = Field(default=993, gt=0, le=65535)
    imap_security: Literal["none", "starttls", "tls"] = "tls"
    imap_user: str = ""
    imap_password_env: str = ""
    imap_folder: str = "INBOX"
    soft_days: int = Field(default=5, ge=1, description="so many days with a soft bounce …")
    soft_window_days: int = Field(default=30, ge=1, description="… within so many without a delivery …")
    soft_rest_days: int = Field(default=30, ge=1, description="… stop mail to the address for so many")


class ServiceWebhooks(Section):
    """Keys with which the e-mail services sign what they report; a service without one is not listened to."""

    sendgrid_public_key_env: str = ""
    mailgun_signing_key_env: str = ""
    ses_topic_arn: str = Field(default="", description="the SNS topic that may report")
    postmark_login_env: str = Field(default="", description="user:password in the webhook's address")


class ChannelsFile(Section):
    channels: tuple[AnyChannel, ...] = Field(min_length=1)
    tracking: Tracking
    bounces: Bounces = Bounces()
    webhooks: ServiceWebhooks = ServiceWebhooks()
