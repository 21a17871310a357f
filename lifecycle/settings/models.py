"""The shape of everything in `config/`, field by field. Unknown keys are errors."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

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


def _quiet_hours(text: object) -> object:
    """`21:00-08:00`, across midnight or not."""
    if not isinstance(text, str):
        return text
    start, dash, end = text.partition("-")
    try:
        begins, ends = (time.fromisoformat(part.strip()) for part in (start, end))
    except ValueError:
        begins = ends = time()
    if not dash or begins == ends or begins.tzinfo or ends.tzinfo:
        raise ValueError('write quiet hours as "21:00-08:00", or "none"')
    return text


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Currency = Annotated[str, AfterValidator(_currency)]
Zone = Annotated[str, AfterValidator(_zone)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Share = Annotated[float, Field(ge=0, le=1)]
QuietHours = Annotated[str, BeforeValidator(_quiet_hours)]


Marketplace = Literal["shopify", "woocommerce", "amazon", "ebay", "aliexpress", "tiktok"]
Purpose = Literal["marketing", "transactional", "review_request"]


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
    marketplace: Marketplace | None = Field(
        default=None, description="whose rules of contact hold, where the data comes by file; else the platform's"
    )
    service_level: str = Field(default="", description="the platform's grade, for quotas that depend on it")
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
    def _reachable(self) -> Self:
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


class Counting(Section):
    """Which messages a rule is about, and over which time it counts them: exactly one of days, hours, per.

    days, hours: the half-open rolling window (t - window, t]. per: the calendar day, week (from Monday), month or
    year of t in `timezone`.
    """

    name: Name
    days: int | None = Field(default=None, gt=0)
    hours: int | None = Field(default=None, gt=0)
    per: Literal["day", "week", "month", "year"] | None = None
    timezone: Zone | None = Field(default=None, description="of `per`")
    channels: tuple[Name, ...] | None = Field(default=None, description="leave out for all channels together")
    shops: tuple[Name, ...] | None = Field(default=None, description="leave out for all shops")
    purposes: tuple[Purpose, ...] | None = Field(default=None, description="leave out for all but transactional")
    campaigns: tuple[Name, ...] | None = Field(default=None, description="leave out for all campaigns together")
    tags: tuple[Name, ...] | None = Field(default=None, description="campaigns with one of these tags")

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        if sum(each is not None for each in (self.days, self.hours, self.per)) != 1:
            raise ValueError("give exactly one of days, hours and per")
        if (self.per is None) != (self.timezone is None):
            raise ValueError("per and timezone belong together, for example per: month, timezone: Europe/Paris")
        return self


class CapRule(Counting):
    """At most `limit` messages to one person in the window. A message must pass all rules."""

    limit: int | None = Field(ge=0, description="0: none at all; null: no limit, the rule is off")
    scope: Literal["customer", "customer_and_shop", "address"] = "customer"
    segments: tuple[Name, ...] | None = Field(default=None, description="only for people in one of these")
    learns_from_refusals: bool = Field(
        default=False, description="a refusal because of the platform's own cap blocks the person for the window"
    )

    @property
    def is_off(self) -> bool:
        return self.limit is None


class Ramp(Section):
    """Growing daily limits of a new sender, from a date on; after the last of them the quota's own limit holds."""

    starts_on: date
    limits: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="of the first day, the second …"
    )


class Quota(Counting):
    """At most `limit` messages of one shop, one channel or one sender's domain in the window."""

    limit: int | dict[str, int] | None = Field(
        description="0: none at all; null: no limit; or by the shop's service_level"
    )
    scope: Literal["shop", "channel", "sender_domain"] = "shop"
    ramp: Ramp | None = None

    @property
    def is_off(self) -> bool:
        return self.limit is None and self.ramp is None

    @model_validator(mode="after")
    def _levels_are_of_shops(self) -> Self:
        if isinstance(self.limit, dict):
            if self.scope != "shop":
                raise ValueError("limits by service_level need scope: shop")
            if not self.limit or min(self.limit.values()) < 0:
                raise ValueError("limits by service_level are numbers from 0 on")
        elif self.limit is not None and self.limit < 0:
            raise ValueError("a limit is a number from 0 on, or null for none")
        if self.ramp is not None and self.per != "day":
            raise ValueError("a ramp has a limit for each day: give it per: day and a timezone")
        return self


class CapsFile(Section):
    caps: tuple[CapRule, ...]
    quotas: tuple[Quota, ...] = ()
    quiet_hours: QuietHours | None = Field(
        default=None,
        description="recipients' local time, for example 21:00-08:00; where the law wants more, it holds",
    )

    @field_validator("quiet_hours", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        """A variable of the environment can only be a text."""
        return None if value == "none" else value


class Schedule(Section):
    """The campaigns' dates on which one is due: exactly one of the three."""

    weekdays: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None = None
    month_days: tuple[Annotated[int, Field(ge=1, le=31)], ...] | None = None
    dates: tuple[date, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(bool(each) for each in (self.weekdays, self.month_days, self.dates)) != 1:
            raise ValueError("give exactly one of weekdays, month_days and dates")
        return self

    def is_due(self, day: date) -> bool:
        if self.weekdays:
            return day.strftime("%a").lower() in self.weekdays
        return day.day in self.month_days if self.month_days else day in (self.dates or ())


class Campaign(Section):
    name: Name
    description: str = Field(min_length=1)
    segments: tuple[Name, ...] = Field(min_length=1, description="everybody in one of them, first match counts")
    exclude: tuple[Name, ...] = ()
    channel: Name
    fallback: tuple[Name, ...] = Field(
        default=(), description="channels for those whom the one before cannot reach, in this order"
    )
    purpose: Purpose = "marketing"
    tags: tuple[Name, ...] = Field(default=(), description="labels that caps and quotas can count by")
    topic: Name = Field(default="promotions", description="what consent is asked for and List-ID names")
    template: Name
    locales: tuple[str, ...] = Field(min_length=1, description="first one is for everybody else")
    shops: tuple[Name, ...] | None = Field(default=None, description="leave out for all shops")
    priority: int = Field(default=100, description="lower goes first when messages compete; equals by value")
    schedule: Schedule | None = Field(default=None, description="when it is due; leave out for every day")
    value: Decimal | None = Field(
        default=None, gt=0, description="expected gain of one message, base currency; else estimated from the past"
    )
    margin: Share | None = Field(default=None, description="of the orders it brings; else the file's")
    drop_when_ordered: bool = Field(
        default=True, description="who has ordered since the segments were built is not meant any more"
    )
    hold_out: Share = Field(default=0.0, description="left out on purpose, to measure")
    variables: dict[str, str] = Field(default_factory=dict, description="for the template")


class Guards(Section):
    """When a plan must be looked at by a person before it is sent, and when it may not be sent at all."""

    approve_over: int | None = Field(
        default=None, ge=0, description="more messages than this need an approval; null: none does"
    )
    max_growth: float | None = Field(
        default=0.5, ge=0, description="audience against the campaign's last run; more needs an approval"
    )
    max_cost: Decimal | None = Field(default=None, ge=0, description="base currency; more needs an approval")
    max_age_hours: int = Field(default=24, ge=1, description="an older plan is not sent")


class CampaignsFile(Section):
    timezone: Zone = Field(description="in which a campaign's date is read")
    global_hold_out: Share = 0.0
    margin: Share = Field(default=0.3, description="share of an order's value that is left, to weigh messages by")
    prior_messages: int = Field(
        default=200, ge=1, description="a segment's response rate is drawn to the general one by so many messages"
    )
    look_ahead_days: int = Field(
        default=7, ge=0, le=60, description="a slot is kept for a better message that is due within so many days"
    )
    guards: Guards = Guards()
    campaigns: tuple[Campaign, ...]


def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
