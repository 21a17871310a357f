"""Every table, once. Portable over SQLite and PostgreSQL; Alembic migrates both.

Instants are aware UTC datetimes. Money is integer minor units beside its ISO currency, and `_base_` columns
are in the shop's base currency at the order's date.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime: `timestamptz` in PostgreSQL, integer microseconds since 1970 elsewhere.

    Integers compare and index faster than ISO text and cannot be compared wrongly with another spelling.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime reached the database: {value!r}")
        return microseconds(value) if dialect.name != "postgresql" else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return instant(value) if dialect.name != "postgresql" else value.astimezone(UTC)


def microseconds(value: datetime) -> int:
    """Since 1970, exactly."""
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def instant(value: int) -> datetime:
    """Of so many microseconds since 1970."""
    return datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)


class Json(TypeDecorator[Any]):
    """JSONB in PostgreSQL; in SQLite text with sorted keys, because STRICT tables know no JSON."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else JSONB(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return json.dumps(value, ensure_ascii=False, sort_keys=True)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return json.loads(value) if isinstance(value, str) and dialect.name == "sqlite" else value


class ExactDecimal(TypeDecorator[Decimal]):
    """NUMERIC in PostgreSQL; text in SQLite, whose own numbers are floats."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric(20, 10))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


Big = BigInteger().with_variant(Integer, "sqlite")
"""64 bits. SQLite's INTEGER has them too, and only it counts up by itself and is known to STRICT tables."""


Real: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")
"""A probability or an expectation, never money. STRICT tables know 64-bit floats as REAL."""


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, *columns, sqlite_strict=True)


def _key(name: str) -> Column[int]:
    return Column(name, Big, primary_key=True)


def _customer(**options: Any) -> Column[int]:
    return Column("customer_id", Big, ForeignKey("customers.customer_id"), **options)


# Landing

landing_pages = _table(
    "landing_pages",
    _key("page_id"),
    Column("shop", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("path", Text, nullable=False, unique=True, comment="below the data folder"),
    Column("sha256", Text, nullable=False, comment="of the uncompressed bytes"),
    Column("rows", Integer, nullable=False),
    Column("window_from", Instant, comment="half-open [from, until); null is the beginning"),
    Column("window_until", Instant, nullable=False),
    Column("landed_at", Instant, nullable=False),
    Column("run_id", Text),
    Index(None, "shop", "entity", "landed_at"),
)

pull_bookmarks = _table(
    "pull_bookmarks",
    Column("shop", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("watermark", Instant, nullable=False, comment="everything changed before it is stored"),
    Column("moved_at", Instant, nullable=False),
    Column("run_id", Text),
)

quarantine = _table(
    "quarantine",
    _key("quarantine_id"),
    Column("shop", Text, nullable=False),
    Column("entity", Text, nullable=False, comment="orders, customers, …"),
    Column("row_key", Text, nullable=False, comment="the platform's id; where it has none, from its content"),
    Column("row", Json, nullable=False, comment="the rejected row, whole"),
    Column("row_updated_at", Instant, comment="at the platform; null where the row does not say"),
    Column("lines", Integer, nullable=False, server_default="1", comment="input lines in this row"),
    Column("expectation", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False, comment="landing page or file it came from"),
    Column("content_hash", Text, nullable=False),
    Column("first_seen_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
    Column("resolved_at", Instant),
    Column("run_id", Text),
    UniqueConstraint("shop", "entity", "row_key", "content_hash"),
)

runs = _table(
    "runs",
    Column("run_id", Text, primary_key=True),
    Column("flow", Text, nullable=False),
    Column("flow_run_id", Text, comment="Prefect's, where there is one"),
    Column("parent_run_id", Text),
    Column("parameters", Json, nullable=False),
    Column("as_of", Instant),
    Column("state", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("summary", Json),
    CheckConstraint("state in ('running', 'completed', 'failed', 'crashed')", name="state"),
    Index(None, "flow", "started_at"),
)

# People

customers = _table(
    "customers",
    _key("customer_id"),
    Column("email", Text, comment="as given; null exactly when email_key is: unknown, not mailable, erased"),
    Column("email_key", Text, unique=True, comment="one mailbox, one person: addresses.email_key"),
    Column("email_hash", Text, index=True, comment="addresses.address_hash of email_key: joins suppressions"),
    Column("email_domain", Text, comment="of email_key"),
    Column("phone", Text),
    Column("phone_hash", Text, index=True, comment="addresses.address_hash of phone: joins suppressions"),
    Column("name", Text),
    Column("country", Text, comment="ISO 3166-1 alpha-2"),
    Column("locale", Text, comment="BCP 47, for example fr or zh-Hans"),
    Column("region", Text, comment="of the newest address, without its country: CA of US-CA"),
    Column("timezone", Text, comment="as the person or shop says, IANA name"),
    Column("phone_zone", Text, comment="IANA name, where the phone number is of exactly one zone"),
    Column("seed", Big, nullable=False, comment="in [1, 2^31-1), stable: planning.holdout"),
    Column("attributes", Json),
    Column("first_seen_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("erased_at", Instant),
)

identities = _table(
    "identities",
    Column("shop", Text, primary_key=True),
    Column("platform_customer_id", Text, primary_key=True),
    _customer(nullable=False, index=True),
    Column("linked_by", Text, nullable=False, comment="platform_id or email"),
    Column("linked_at", Instant, nullable=False),
    Column("updated_at", Instant, comment="at the platform, of the customer row as last taken in"),
    Column("content_hash", Text, comment="of the platform's customer row as last taken in"),
    Column("profile", Json, comment="what this shop says of the person: customers.profiles"),
    Column("handle_hash", Text, index=True, comment="addresses.address_hash of shop:id: joins suppressions"),
)

identity_merges = _table(
    "identity_merges",
    _key("merge_id"),
    Column("from_customer_id", Big, nullable=False, index=True),
    Column("into_customer_id", Big, nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("merged_at", Instant, nullable=False),
    Column("undone_at", Instant),
    Column("before", Json, nullable=False, comment="what an undo needs"),
)

consents = _table(
    "consents",
    _key("consent_id"),
    _customer(nullable=False),
    Column("shop", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("basis", Text, nullable=False, comment="express, double_opt_in, soft_opt_in, request, …"),
    Column("occurred_at", Instant, nullable=False, comment="when the person said so"),
    Column("recorded_at", Instant, nullable=False),
    Column("source", Text, nullable=False, comment="platform, file, web page"),
    Column("wording", Text),
    Column("evidence", Text),
    Column("expires_at", Instant),
    CheckConstraint("status in ('granted', 'withdrawn', 'pending')", name="status"),
    UniqueConstraint("customer_id", "shop", "channel", "topic", "status", "occurred_at", "source"),
)

suppressions = _table(
    "suppressions",
    _key("suppression_id"),
    Column("address_hash", Text, nullable=False, comment="addresses.address_hash; survives erasure"),
    Column("channel", Text, nullable=False),
    Column("shop", Text, comment="null: every shop"),
    Column("purpose", Text, nullable=False, comment="marketing, or all"),
    Column("reason", Text, nullable=False, comment="unsubscribe, complaint, hard_bounce, soft_bounce, manual"),
    Column("evidence", Text, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("expires_at", Instant, comment="of soft bounces: a rest, not for good"),
    Column("lifted_at", Instant),
    Column("lifted_by", Text, comment="who ended it by hand"),
    Column("lifted_note", Text, comment="and why"),
    UniqueConstraint("address_hash", "channel", "shop", "purpose", "reason", "occurred_at"),
)

inbound_messages = _table(
    "inbound_messages",
    _key("inbound_id"),
    Column("channel", Text, nullable=False, comment="kind of channel"),
    Column("address_hash", Text, nullable=False, comment="addresses.address_hash of who wrote"),
    Column("received_at", Instant, nullable=False),
    Column("dedupe_key", Text, unique=True),
    Index(None, "address_hash", "channel", "received_at"),
)
"""That a person wrote to us, not what: messengers allow more for a day after it."""

mail_domains = _table(
    "mail_domains",
    Column("domain", Text, primary_key=True),
    Column("provider", Text, nullable=False, comment="who runs its mailboxes: settings.mailboxes"),
    Column("source", Text, nullable=False),
    Column("checked_at", Instant, nullable=False),
    CheckConstraint("source in ('list', 'mx')", name="source"),
)

tags = _table(
    "tags",
    _customer(primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("added_at", Instant, primary_key=True),
    Column("removed_at", Instant),
)

# Trade

orders = _table(
    "orders",
    _key("order_key"),
    Column("shop", Text, nullable=False),
    Column("order_id", Text, nullable=False, comment="the platform's"),
    _customer(nullable=True, comment="null: a guest whom nothing identifies"),
    Column("ordered_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False, comment="at the platform"),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", Big, nullable=False),
    Column("total_base_minor", Big, nullable=False),
    Column("refunded_minor", Big, nullable=False, server_default="0"),
    Column("refunded_base_minor", Big, nullable=False, server_default="0"),
    Column("discount_minor", Big, nullable=False, server_default="0"),
    Column("tax_minor", Big, nullable=False, server_default="0"),
    Column("shipping_minor", Big, nullable=False, server_default="0"),
    Column("country", Text),
    Column("region", Text, comment="of the address it goes to, without the country"),
    Column("paid_at", Instant),
    Column("shipped_at", Instant),
    Column("delivered_at", Instant),
    Column("attributes", Json),
    Column("line_count", Integer, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("landed_at", Instant, nullable=False, comment="first seen here"),
    Column("run_id", Text),
    UniqueConstraint("shop", "order_id"),
    CheckConstraint("status in ('open', 'paid', 'refunded', 'cancelled', 'returned')", name="status"),
    Index(
        "ix_orders_bookings",
        "customer_id",
        "ordered_at",
        "order_key",
        "status",
        "total_minor",
        "total_base_minor",
        "refunded_base_minor",
        "line_count",
        "shop",
    ),
    Index(None, "ordered_at", "customer_id"),
    Index(
        "ix_orders_given_back",
        "customer_id",
        "ordered_at",
        sqlite_where=text("status in ('returned', 'refunded')"),
        postgresql_where=text("status in ('returned', 'refunded')"),
    ),
)
"""The first index holds all that the metrics of segments read, so that orders themselves are not touched.

`returned` is a return booked as an order of its own: its total is negative."""

order_lines = _table(
    "order_lines",
    Column("order_key", Big, ForeignKey("orders.order_key", ondelete="CASCADE"), primary_key=True),
    Column("line_no", Integer, primary_key=True, autoincrement=False),
    Column("sku", Text, nullable=False),
    Column("title", Text),
    Column("category", Text),
    Column("quantity", Integer, nullable=False, comment="negative on a return"),
    Column("unit_price_minor", Big, nullable=False),
    Index(None, "sku"),
)

refunds = _table(
    "refunds",
    Column("order_key", Big, ForeignKey("orders.order_key", ondelete="CASCADE"), primary_key=True),
    Column("refund_id", Text, primary_key=True),
    Column("refunded_at", Instant, nullable=False),
    Column("amount_minor", Big, nullable=False),
    Column("amount_base_minor", Big, nullable=False),
    Index(None, "refunded_at", "order_key"),
)

fx_rates = _table(
    "fx_rates",
    Column("currency", Text, primary_key=True),
    Column("base", Text, primary_key=True),
    Column("valid_from", Text, primary_key=True, comment="ISO date"),
    Column("rate", ExactDecimal, nullable=False, comment="price of one unit of currency in base"),
    Column("source", Text, nullable=False),
)

# Segments

changed_customers = _table(
    "changed_customers",
    _key("change_id"),
    Column("customer_id", Big, nullable=False),
)
"""Whose orders, refunds, tags, profile or message events changed since the last build, as often as they did.
Triggers of the database write it, so that no way of changing a row is forgotten; a build takes out what it saw."""

segment_runs = _table(
    "segment_runs",
    _key("segment_run_id"),
    Column("as_of", Instant, nullable=False),
    Column("built_at", Instant, nullable=False),
    Column("kind", Text, nullable=False, server_default="full"),
    Column("definitions_hash", Text, nullable=False),
    Column("definitions", Json, nullable=False),
    Column("cuts", Json, nullable=False, server_default="{}", comment="scores' and shares' cut points at as_of"),
    Column("customers", Integer, nullable=False),
    Column("counts", Json, nullable=False, comment="segment to members"),
    Column("run_id", Text),
    CheckConstraint("kind in ('full', 'incremental', 'backfill')", name="kind"),
    Index(None, "as_of"),
)

customer_metrics = _table(
    "customer_metrics",
    _customer(primary_key=True, autoincrement=False),
    Column("first_order_at", Instant, nullable=False),
    Column("last_order_at", Instant, nullable=False),
    Column("previous_order_at", Instant, comment="of the order before the last one"),
    Column("last_shop", Text, nullable=False, comment="shop of the newest order"),
    Column("frequency", Integer, nullable=False, comment="orders, lifetime"),
    Column("order_days", Integer, nullable=False, comment="different UTC days with an order"),
    Column("order_lines", Integer, nullable=False, comment="lines of all orders"),
    Column("gross_minor", Big, nullable=False, comment="orders before anything was given back, base currency"),
    Column("refunded_minor", Big, nullable=False, comment="refunds and returns, base currency"),
    Column("monetary_minor", Big, nullable=False, comment="spend: gross less what was given back"),
    Column("orders_12m", Integer, nullable=False),
    Column("spend_12m_minor", Big, nullable=False),
    Column("last_messaged_at", Instant, comment="a message was accepted or may have arrived"),
    Column("last_opened_at", Instant, comment="by a person, not a machine"),
    Column("last_clicked_at", Instant, comment="by a person, not a machine"),
    Column("r", Integer, nullable=False),
    Column("f", Integer, nullable=False),
    Column("m", Integer, comment="null where the recipe leaves money out"),
    Column("rfm_segment", Text, nullable=False),
)
"""One row per customer with a counted order, as of the newest build: the newest `segment_runs.as_of`."""

customer_windows = _table(
    "customer_windows",
    Column("days", Integer, primary_key=True, autoincrement=False),
    _customer(primary_key=True),
    Column("orders", Integer, nullable=False),
    Column("spend_minor", Big, nullable=False),
)
"""The same over the further windows of config/segments.yaml; no row where nothing was booked in one."""

prediction_runs = _table(
    "prediction_runs",
    _key("prediction_run_id"),
    Column("as_of", Instant, nullable=False),
    Column("fitted_at", Instant, nullable=False),
    Column("horizon_days", Integer, nullable=False),
    Column("customers", Integer, nullable=False, comment="with an order at as_of"),
    Column("repeat_customers", Integer, nullable=False, comment="with orders on two days or more"),
    Column("problem", Text, comment="why nothing could be fitted, with the floor; null: it was"),
    Column("parameters", Json, nullable=False, comment="by model: values, standard errors, log-likelihood"),
    Column("calibration", Json, nullable=False, comment="expected beside seen on a hold-out period"),
    Column("run_id", Text),
    Index(None, "as_of"),
)

customer_predictions = _table(
    "customer_predictions",
    _customer(primary_key=True, autoincrement=False),
    Column("prediction_run_id", Big, ForeignKey("prediction_runs.prediction_run_id"), nullable=False),
    Column("alive", Real, nullable=False, comment="probability in [0, 1]"),
    Column("expected_orders", Real, nullable=False, comment="order days in the run's horizon"),
    Column("expected_spend_minor", Big, comment="in the horizon, base currency; null: cannot be told"),
    Column("next_order_at", Instant, comment="null: none is expected"),
)
"""Of the newest prediction run only: earlier ones follow from its parameters and the orders."""

segment_members = _table(
    "segment_members",
    Column("segment", Text, primary_key=True),
    _customer(primary_key=True),
    Column("valid_from", Instant, primary_key=True),
    Column("valid_to", Instant, comment="half-open; null: still a member"),
    Index(None, "customer_id"),
    Index(
        "ix_segment_members_current",
        "segment",
        "customer_id",
        sqlite_where=text("valid_to is null"),
        postgresql_where=text("valid_to is null"),
    ),
)

# Planning and ledger

plans = _table(
    "plans",
    _key("plan_id"),
    Column("campaign", Text, nullable=False),
    Column("occurrence", Text, nullable=False, comment="the campaign's date, YYYY-MM-DD"),
    Column("as_of", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("hash", Text, nullable=False, comment="sha256 over the verdicts as planned"),
    Column("audience", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("definition", Json, nullable=False, comment="the campaign as configured then"),
    Column("content_hash", Text, comment="sha256 over its templates; what was looked at is what is sent"),
    Column("summary", Json, comment="guard rails, samples, values: planning.records.Summary"),
    Column("approved_by", Text),
    Column("applied_at", Instant),
    Column("run_id", Text),
    Column("channel", Text, nullable=False, server_default="", comment="by which it goes out"),
    Column("fallback_of", Big, comment="plan whose unreachable people this one is for"),
    CheckConstraint("status in ('draft', 'applied')", name="status"),
    Index(
        "uq_plans_applied_once",
        "campaign",
        "occurrence",
        "channel",
        unique=True,
        sqlite_where=text("status = 'applied'"),
        postgresql_where=text("status = 'applied'"),
    ),
)

approvals = _table(
    "approvals",
    _key("approval_id"),
    Column("plan_id", Big, ForeignKey("plans.plan_id"), nullable=False, index=True),
    Column("hash", Text, nullable=False, comment="of the plan as it was approved"),
    Column("approved_by", Text, nullable=False),
    Column("approved_at", Instant, nullable=False),
)

VERDICTS = (
    "no_address", "suppressed", "no_consent", "policy", "condition_gone", "hold_out", "capped", "quota",
    "lost_to", "quiet_hours", "content", "selected",
)  # fmt: skip
"""In order: the first that applies is the person's verdict."""

verdicts = _table(
    "verdicts",
    Column("plan_id", Big, ForeignKey("plans.plan_id"), primary_key=True),
    _customer(primary_key=True),
    Column("verdict", Text, nullable=False),
    Column("rule", Text, comment="the rule that decided, by name"),
    Column("blocking_message_id", Big, comment="newest message that fills the cap"),
    Column("frees_at", Instant, comment="when a slot is free again; of quiet_hours: when they end"),
    Column("lost_to", Text, comment="campaign that takes the slot, of today or still to come"),
    Column("segment", Text, nullable=False, comment="the segment that brought the person here"),
    Column("shop", Text, comment="which shop would write"),
    Column("locale", Text, comment="language of the template"),
    Column("revised_verdict", Text, comment="why a selected person got nothing after all"),
    Column("revised_rule", Text),
    Column("revised_at", Instant),
    CheckConstraint(f"verdict in {VERDICTS!r}", name="verdict"),
    CheckConstraint(f"revised_verdict in {VERDICTS[:-1]!r}", name="revised_verdict"),
    Index(None, "customer_id"),
)

messages = _table(
    "messages",
    _key("message_id"),
    Column("plan_id", Big, ForeignKey("plans.plan_id"), index=True),
    Column("what", Text, nullable=False, comment="campaign or journey step"),
    Column("occurrence", Text, nullable=False),
    _customer(nullable=False),
    Column("channel", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("tags", Text, comment="of its campaign then: ,sale,spring, with a comma on both sides"),
    Column("shop", Text, nullable=False),
    Column("segment", Text),
    Column("template", Text, nullable=False),
    Column("locale", Text, nullable=False),
    Column("address_hash", Text, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("send_at", Instant, nullable=False, comment="counts for caps from here"),
    Column("not_before", Instant, comment="held until, after a temporary refusal"),
    Column("reserved_at", Instant, nullable=False),
    Column("claim", Text, comment="fencing token of the process that holds it; of unknown: that held it"),
    Column("lease_until", Instant),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("sent_at", Instant, comment="when its bytes began to leave"),
    Column("settled_at", Instant, comment="when the peer's answer was written down"),
    Column("reason", Text, comment="code and words of a refusal or of not knowing"),
    Column("refusal", Text, comment="what a refusal is about: channels.base.Scope"),
    Column("provider_id", Text, comment="Message-ID, or the provider's id"),
    Column("run_id", Text),
    Column("mailbox_provider", Text, nullable=False, server_default="", comment="settings.mailboxes"),
    UniqueConstraint("what", "occurrence", "customer_id", "channel"),
    CheckConstraint("state in ('reserved', 'sending', 'accepted', 'refused', 'unknown')", name="state"),
    Index(
        "ix_messages_slots",
        "customer_id",
        "send_at",
        "shop",
        "state",
        "purpose",
        "channel",
        "what",
        "tags",
        "refusal",
    ),
    Index(None, "address_hash", "send_at"),
    Index(None, "sent_at"),
    Index(None, "provider_id"),
    Index(
        "ix_messages_unknown",
        "claim",
        sqlite_where=text("state = 'unknown'"),
        postgresql_where=text("state = 'unknown'"),
    ),
    Index(
        "ix_messages_open",
        "plan_id",
        "batch",
        sqlite_where=text("state in ('reserved', 'sending')"),
        postgresql_where=text("state in ('reserved', 'sending')"),
    ),
)

"""The first index holds all that caps ask of a person's messages: without touching the rows, ten times faster."""

lanes = _table(
    "lanes",
    Column("channel", Text, primary_key=True),
    Column("account", Text, primary_key=True, comment="of e-mail; else empty"),
    Column("mailbox_provider", Text, primary_key=True, comment="empty: all of the account together"),
    Column("next_at", Instant, comment="when the next message may leave, by the limit per second"),
    Column("paused_until", Instant),
    Column("connections", Integer, comment="at most so many until it has recovered; null: as configured"),
    Column("failures", Integer, nullable=False, server_default="0", comment="in a row"),
    Column("reason", Text),
    Column("changed_at", Instant, nullable=False),
)
"""How fast each way is driven, over all processes; a row exists where there is something to say."""

lane_slots = _table(
    "lane_slots",
    Column("claim", Text, primary_key=True, comment="who has the connection"),
    Column("channel", Text, nullable=False),
    Column("mailbox_provider", Text, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Index(None, "channel", "mailbox_provider"),
)
"""Connections in use, over all processes."""

holds = _table(
    "holds",
    _key("hold_id"),
    Column("campaign", Text, nullable=False, index=True),
    Column("channel", Text, comment="null: all"),
    Column("mailbox_provider", Text, comment="null: all"),
    Column("reason", Text, nullable=False),
    Column("set_by", Text, nullable=False, comment="a person's name, or breaker"),
    Column("set_at", Instant, nullable=False),
    Column("lifted_by", Text),
    Column("lifted_at", Instant),
)
"""Campaigns of which nothing leaves until the hold is lifted."""

breakers = _table(
    "breakers",
    Column("campaign", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("mailbox_provider", Text, primary_key=True),
    Column("counted_from", Instant, nullable=False),
    Column("sent", Integer, nullable=False, comment="accepted, refused for good and unknown"),
    Column("bounced", Integer, nullable=False, comment="hard, at once or by a report"),
    Column("complained", Integer, nullable=False),
)
"""What the breaker of a lane counts."""

unmatched_reports = _table(
    "unmatched_reports",
    _key("report_id"),
    Column("source", Text, nullable=False, comment="lmtp, imap, a service's webhook"),
    Column("kind", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("detail", Json, nullable=False, comment="what was understood, without addresses"),
    Column("dedupe_key", Text, unique=True),
)
"""Bounces and complaints that name no message of ours."""

links = _table(
    "links",
    Column("plan_id", Big, ForeignKey("plans.plan_id"), primary_key=True),
    Column("link_id", Integer, primary_key=True, autoincrement=False, comment="1 to 65,535"),
    Column("url", Text, nullable=False),
    Column("label", Text),
    UniqueConstraint("plan_id", "url"),
)

cap_rules = _table(
    "cap_rules",
    Column("plan_id", Big, ForeignKey("plans.plan_id"), primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("kind", Text, nullable=False, server_default="cap"),
    Column("position", Integer, nullable=False),
    Column("definition", Json, nullable=False),
    CheckConstraint("kind in ('cap', 'quota')", name="kind"),
)
"""As they stood when the plan was made, those of the platforms among them."""

message_events = _table(
    "message_events",
    _key("event_id"),
    Column("message_id", Big, ForeignKey("messages.message_id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("link_id", Integer),
    Column("user_agent", Text),
    Column("ip", Text),
    Column("detail", Json),
    Column("source", Text, nullable=False, comment="web, smtp, a provider's webhook"),
    Column("dedupe_key", Text, unique=True, comment="null: every hit counts"),
    CheckConstraint(
        "kind in ('delivered', 'bounced', 'complained', 'opened', 'clicked', 'unsubscribed')", name="kind"
    ),
    Index(None, "kind", "occurred_at"),
)
"""Raw and never changed; what a hit means is in `event_classes`, by rule version."""

event_classes = _table(
    "event_classes",
    Column("event_id", Big, ForeignKey("message_events.event_id"), primary_key=True),
    Column("rules_version", Text, primary_key=True),
    Column("class", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    CheckConstraint("class in ('person', 'proxy', 'prefetch', 'scanner', 'unknown')", name="class"),
)

__all__ = [name for name, value in list(globals().items()) if isinstance(value, Table)] + [
    "VERDICTS", "Big", "Instant", "Real", "metadata",
]  # fmt: skip
