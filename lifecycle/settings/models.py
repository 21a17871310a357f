"""The shape of everything in `config/`, field by field. Unknown keys are errors."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lifecycle.addresses import mailable
from lifecycle.errors import suggest
from lifecycle.money import is_currency


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _currency(code: str) -> str:
    if not is_currency(code):
        raise ValueError(f'"{code}" is not an ISO 4217 currency, for example EUR')
    return code


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f'"{name}" is not a time zone{suggest(name, available_timezones())}')
    return name


def _mailbox(address: str) -> str:
    if mailable(address) != address:
        raise ValueError(f'"{address}" is no address that mail can be sent from, for example news@example.com')
    return address


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Currency = Annotated[str, AfterValidator(_currency)]
Zone = Annotated[str, AfterValidator(_zone)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Share = Annotated[float, Field(ge=0, le=1)]


class Sender(Section):
    """Who a shop's mails come from, and the address the law wants in every one of them."""

    name: str = Field(min_length=1, description="display name: the brand, nothing else")
    address: Mailbox = Field(description="From; its domain must be aligned with SPF and DKIM")
    reply_to: Mailbox = Field(description="a mailbox that is read")
    postal_address: str = Field(min_length=1, description="shown in the footer")


class Shop(Section):
    """One seller account on one platform."""

    name: Name
    platform: Literal["shopify", "woocommerce", "file"]
    url: str = Field(default="", description="base address of the platform's API; not for files")
    token_env: str = Field(default="", description="environment variable with the token or key:secret")
    currency: Currency
    timezone: Zone
    site: str = Field(default="", description="where mails link to")
    consent_field: str = Field(
        default="", description="WooCommerce: customer meta key that holds the newsletter opt-in"
    )
    bulk_first_pull: bool = Field(default=True, description="Shopify: the first pull uses a bulk export")
    sender: Sender

    @model_validator(mode="after")
    def _reachable(self) -> Shop:
        if self.platform != "file" and not (self.url and self.token_env):
            raise ValueError(f"a {self.platform} shop needs url and token_env")
        return self


class ExchangeRate(Section):
    currency: Currency
    rate: Decimal = Field(gt=0, description="price of one unit in the base currency")
    valid_from: date = date(1970, 1, 1)
    source: str = "config/shops.yaml"


class Pulling(Section):
    overlap_minutes: int = Field(default=15, ge=0, description="read again before the bookmark, for late rows")
    page_size: int = Field(default=100, ge=1, le=250)
    timeout_seconds: float = Field(default=30, gt=0)
    max_attempts: int = Field(default=5, ge=1, description="per request, seconds apart")
    busy_wait_seconds: tuple[float, ...] = Field(
        default=(30, 120), description="waits of a flow before it asks a platform again that is busy or down"
    )


class Quality(Section):
    max_rejected_share: Share = Field(default=0.05, description="above it a pull fails and stores nothing")
    tolerated_rows: int = Field(
        default=3, ge=0, description="so many rejected rows never fail a pull, however small it is"
    )


class ShopsFile(Section):
    base_currency: Currency
    exchange_rates: tuple[ExchangeRate, ...] = ()
    pulling: Pulling = Pulling()
    quality: Quality = Quality()
    shops: tuple[Shop, ...] = Field(min_length=1)


class CapRule(Section):
    """At most `limit` messages in the half-open rolling window (t - days, t]."""

    name: Name
    limit: int = Field(ge=0, description="0: none at all")
    days: int = Field(gt=0)
    channels: tuple[Name, ...] | None = Field(default=None, description="leave out for all channels together")
    scope: Literal["customer", "customer_and_shop"] = "customer"
    campaigns: tuple[Name, ...] | None = Field(default=None, description="leave out for all campaigns together")


class CapsFile(Section):
    caps: tuple[CapRule, ...]


class Campaign(Section):
    name: Name
    description: str = Field(min_length=1)
    segments: tuple[Name, ...] = Field(min_length=1, description="everybody in one of them, first match counts")
    exclude: tuple[Name, ...] = ()
    channel: Name
    purpose: Literal["marketing"] = "marketing"
    topic: Name = Field(default="promotions", description="what consent is asked for and List-ID names")
    template: Name
    locales: tuple[str, ...] = Field(min_length=1, description="first one is for everybody else")
    shops: tuple[Name, ...] | None = Field(default=None, description="leave out for all shops")
    priority: int = Field(default=100, description="lower goes first when messages compete for a cap")
    hold_out: Share = Field(default=0.0, description="left out on purpose, to measure")
    variables: dict[str, str] = Field(default_factory=dict, description="for the template")


class CampaignsFile(Section):
    timezone: Zone = Field(description="in which a campaign's date is read")
    global_hold_out: Share = 0.0
    campaigns: tuple[Campaign, ...]


class Smtp(Section):
    host: str
    port: int = Field(gt=0, le=65535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: str = ""
    password_env: str = ""
    timeout_seconds: float = Field(default=30, gt=0)
    hello_name: str = "localhost"


class EmailChannel(Section):
    name: Name
    kind: Literal["email"]
    smtp: Smtp
    bounce_domain: str = Field(description="envelope sender is b+TOKEN@ this domain")
    batch_size: int = Field(default=1000, ge=1, le=10_000, description="messages in one Prefect task")
    lease_seconds: int = Field(default=120, ge=10, description="a silent process loses its claim after it")
    max_attempts: int = Field(default=5, ge=1)
    expire_hours: int = Field(
        default=24, ge=1, le=24, description="marketing not sent so long after it was reserved is dropped"
    )
    retry_minutes: int = Field(default=15, ge=0, description="wait after a temporary refusal, doubled each time")


class Tracking(Section):
    base_url: str = Field(description="where recipients reach the tracking web app")
    scanner_seconds: float = Field(default=2.0, ge=0, description="a click sooner after sending is a machine's")
    burst_links: int = Field(default=3, ge=2, description="so many different links …")
    burst_seconds: float = Field(default=2.0, gt=0, description="… within so long are a scanner's")
    attribution_days: int = Field(default=7, gt=0, description="orders so long after a click count")


class ChannelsFile(Section):
    channels: tuple[EmailChannel, ...] = Field(min_length=1)
    tracking: Tracking


def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
