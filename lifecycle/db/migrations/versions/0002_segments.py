"""segments: metrics that need no daily rewrite, windows, predictions, and a log of changed customers"""

import sqlalchemy as sa
from alembic import op

from lifecycle.db import schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
_BOOKINGS = (
    "customer_id", "ordered_at", "order_key", "status", "total_minor", "total_base_minor",
    "refunded_base_minor", "line_count", "shop",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "changed_customers",
        sa.Column("change_id", _BIG, nullable=False),
        sa.Column("customer_id", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("change_id", name="pk_changed_customers"),
        sqlite_strict=True,
    )
    op.drop_table("customer_metrics")  # derived: the next build is a full one
    op.create_table(
        "customer_metrics",
        sa.Column("customer_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("first_order_at", schema.Instant(), nullable=False),
        sa.Column("last_order_at", schema.Instant(), nullable=False),
        sa.Column("previous_order_at", schema.Instant(), comment="of the order before the last one"),
        sa.Column("last_shop", sa.Text(), nullable=False, comment="shop of the newest order"),
        sa.Column("frequency", sa.Integer(), nullable=False, comment="orders, lifetime"),
        sa.Column("order_days", sa.Integer(), nullable=False, comment="different UTC days with an order"),
        sa.Column("order_lines", sa.Integer(), nullable=False, comment="lines of all orders"),
        sa.Column("gross_minor", _BIG, nullable=False, comment="orders before anything was given back, base currency"),
        sa.Column("refunded_minor", _BIG, nullable=False, comment="refunds and returns, base currency"),
        sa.Column("monetary_minor", _BIG, nullable=False, comment="spend: gross less what was given back"),
        sa.Column("orders_12m", sa.Integer(), nullable=False),
        sa.Column("spend_12m_minor", _BIG, nullable=False),
        sa.Column("last_messaged_at", schema.Instant(), comment="a message was accepted or may have arrived"),
        sa.Column("last_opened_at", schema.Instant(), comment="by a person, not a machine"),
        sa.Column("last_clicked_at", schema.Instant(), comment="by a person, not a machine"),
        sa.Column("r", sa.Integer(), nullable=False),
        sa.Column("f", sa.Integer(), nullable=False),
        sa.Column("m", sa.Integer(), comment="null where the recipe leaves money out"),
        sa.Column("rfm_segment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"], name="fk_customer_metrics_customer_id"),
        sa.PrimaryKeyConstraint("customer_id", name="pk_customer_metrics"),
        sqlite_strict=True,
    )
    op.create_table(
        "customer_windows",
        sa.Column("days", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("customer_id", _BIG, nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.Column("spend_minor", _BIG, nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"], name="fk_customer_windows_customer_id"),
        sa.PrimaryKeyConstraint("days", "customer_id", name="pk_customer_windows"),
        sqlite_strict=True,
    )
    op.create_table(
        "prediction_runs",
        sa.Column("prediction_run_id", _BIG, nullable=False),
        sa.Column("as_of", schema.Instant(), nullable=False),
        sa.Column("fitted_at", schema.Instant(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("customers", sa.Integer(), nullable=False, comment="with an order at as_of"),
        sa.Column("repeat_customers", sa.Integer(), nullable=False, comment="with orders on two days or more"),
        sa.Column("problem", sa.Text(), comment="why nothing could be fitted, with the floor; null: it was"),
        sa.Column("parameters", schema.Json(), nullable=False, comment="by model: values, standard errors, log-likelihood"),
        sa.Column("calibration", schema.Json(), nullable=False, comment="expected beside seen on a hold-out period"),
        sa.Column("run_id", sa.Text()),
        sa.PrimaryKeyConstraint("prediction_run_id", name="pk_prediction_runs"),
        sqlite_strict=True,
    )
    op.create_index("ix_prediction_runs_as_of", "prediction_runs", ["as_of"])
    op.create_table(
        "customer_predictions",
        sa.Column("customer_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("prediction_run_id", _BIG, nullable=False),
        sa.Column("alive", _REAL, nullable=False, comment="probability in [0, 1]"),
        sa.Column("expected_orders", _REAL, nullable=False, comment="order days in the run's horizon"),
        sa.Column("expected_spend_minor", _BIG, comment="in the horizon, base currency; null: cannot be told"),
        sa.Column("next_order_at", schema.Instant(), comment="null: none is expected"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"], name="fk_customer_predictions_customer_id"),
        sa.ForeignKeyConstraint(["prediction_run_id"], ["prediction_runs.prediction_run_id"], name="fk_customer_predictions_prediction_run_id"),
        sa.PrimaryKeyConstraint("customer_id", name="pk_customer_predictions"),
        sqlite_strict=True,
    )
    op.add_column("order_lines", sa.Column("category", sa.Text()))
    op.create_index("ix_order_lines_sku", "order_lines", ["sku"])
    op.drop_index("ix_orders_customer_id_ordered_at", "orders")
    op.drop_index("ix_orders_ordered_at", "orders")
    op.create_index("ix_orders_bookings", "orders", list(_BOOKINGS))
    op.create_index("ix_orders_ordered_at_customer_id", "orders", ["ordered_at", "customer_id"])
    where = sa.text("status in ('returned', 'refunded')")
    op.create_index(
        "ix_orders_given_back", "orders", ["customer_id", "ordered_at"], sqlite_where=where, postgresql_where=where
    )
    op.create_index("ix_refunds_refunded_at_order_key", "refunds", ["refunded_at", "order_key"])
    op.create_index("ix_messages_sent_at", "messages", ["sent_at"])
    with op.batch_alter_table("segment_runs") as batch:
        batch.add_column(sa.Column("kind", sa.Text(), nullable=False, server_default="full"))
        batch.add_column(sa.Column("cuts", schema.Json(), nullable=False, server_default="{}", comment="scores' and shares' cut points at as_of"))
        batch.create_check_constraint("ck_segment_runs_kind", "kind in ('full', 'incremental', 'backfill')")
    watch = _watch_in_sqlite if op.get_bind().dialect.name == "sqlite" else _watch_in_postgresql
    for table, key, whose, columns in _WATCHED:
        for event in ("insert", "update", "delete"):
            if (table, event) not in _SILENT:
                watch(table, event, key, whose, columns)


def downgrade() -> None:
    raise NotImplementedError("restore the backup from before the migration")


# What a segment depends on: table, its key, whose the row {r} is, and the columns that count (none: all of them).
_WATCHED = (
    ("orders", ("order_key",), "{r}.customer_id", ()),
    ("refunds", ("order_key", "refund_id"), "(select o.customer_id from orders o where o.order_key = {r}.order_key)", ()),
    ("tags", ("customer_id", "tag", "added_at"), "{r}.customer_id", ()),
    ("identities", ("shop", "platform_customer_id"), "{r}.customer_id", ("customer_id",)),
    ("customers", ("customer_id",), "{r}.customer_id", ("country", "locale", "attributes")),
    ("messages", ("message_id",), "{r}.customer_id", ("customer_id", "state", "sent_at")),
    ("message_events", ("event_id",), "(select m.customer_id from messages m where m.message_id = {r}.message_id)", ()),
    (
        "event_classes",
        ("event_id", "rules_version"),
        "(select m.customer_id from message_events e join messages m on m.message_id = e.message_id where e.event_id = {r}.event_id)",
        (),
    ),
)  # fmt: skip

# Who has no order is in no segment, and a message is sent by an update.
_SILENT = {("customers", "insert"), ("customers", "delete"), ("messages", "insert")}


def _watch_in_sqlite(
    table: str, event: str, _key: tuple[str, ...], whose: str, columns: tuple[str, ...]
) -> None:
    """A later batch_alter_table on a watched table drops its triggers with the old table: make them again."""
    statements = []
    for row in {"insert": ("new",), "update": ("old", "new"), "delete": ("old",)}[event]:
        who = whose.format(r=row)
        statements.append(f"insert into changed_customers (customer_id) select {who} where {who} is not null;")
    of = f" of {', '.join(columns)}" if event == "update" and columns else ""
    op.execute(f"create trigger changed_by_{table}_{event} after {event}{of} on {table} begin {' '.join(statements)} end")


def _watch_in_postgresql(
    table: str, event: str, key: tuple[str, ...], whose: str, columns: tuple[str, ...]
) -> None:
    """Once per statement, whatever the number of rows."""
    name = f"changed_by_{table}_{event}"
    log = "insert into changed_customers (customer_id) select distinct who from ({rows}) found where who is not null;"
    if event == "update":
        same = " and ".join(f"o.{column} is not distinct from n.{column}" for column in columns) or "false"
        joined = " and ".join(f"n.{column} = o.{column}" for column in key)
        changed = f"from old_rows o join new_rows n on {joined} where not ({same})"
        rows = f"select {whose.format(r='o')} as who {changed} union select {whose.format(r='n')} {changed}"
        tables = "referencing old table as old_rows new table as new_rows"
    else:
        side = "new" if event == "insert" else "old"
        rows = f"select {whose.format(r='x')} as who from {side}_rows x"
        tables = f"referencing {side} table as {side}_rows"
    op.execute(
        f"create function {name}() returns trigger language plpgsql as $$ begin {log.format(rows=rows)} return null; end $$"
    )
    op.execute(
        f"create trigger {name} after {event} on {table} {tables} for each statement execute function {name}()"
    )
