"""sending: mailbox providers, lanes and their breakers, holds, other channels' addresses, reports without a message"""

import json

import sqlalchemy as sa
from alembic import op

from lifecycle.db import schema

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NEW: dict[str, dict[str, str]] = {
    "customers": {
        "email_domain": "of email_key",
        "phone_hash": "addresses.address_hash of phone: joins suppressions",
    },
    "identities": {"handle_hash": "addresses.address_hash of shop:id: joins suppressions"},
    "suppressions": {"lifted_by": "who ended it by hand", "lifted_note": "and why"},
}
_INDEXED = {"customers": "phone_hash", "identities": "handle_hash"}
_TABLES = ("inbound_messages", "mail_domains", "lanes", "lane_slots", "holds", "breakers", "unmatched_reports")
_APPLIED = "uq_plans_applied_once"


def upgrade() -> None:
    connection = op.get_bind()
    for table, columns in _NEW.items():  # plainly, so that the triggers of watched tables stay
        for name, comment in columns.items():
            op.add_column(table, sa.Column(name, sa.Text(), comment=comment))
    for table, column in _INDEXED.items():
        op.create_index(f"ix_{table}_{column}", table, [column])
    op.add_column(
        "suppressions",
        sa.Column("expires_at", schema.Instant(), comment="of soft bounces: a rest, not for good"),
    )
    op.add_column(
        "messages",
        sa.Column(
            "mailbox_provider", sa.Text(), nullable=False, server_default="", comment="settings.mailboxes"
        ),
    )
    op.create_index("ix_messages_provider_id", "messages", ["provider_id"])
    unknown = sa.text("state = 'unknown'")
    op.create_index(
        "ix_messages_unknown", "messages", ["claim"], sqlite_where=unknown, postgresql_where=unknown
    )
    op.add_column(
        "plans",
        sa.Column("channel", sa.Text(), nullable=False, server_default="", comment="by which it goes out"),
    )
    op.add_column(
        "plans", sa.Column("fallback_of", _BIG, comment="plan whose unreachable people this one is for")
    )
    _fill_channels(connection)
    op.drop_index(_APPLIED, "plans")
    applied = sa.text("status = 'applied'")
    op.create_index(
        _APPLIED,
        "plans",
        ["campaign", "occurrence", "channel"],
        unique=True,
        sqlite_where=applied,
        postgresql_where=applied,
    )
    for name in _TABLES:
        schema.metadata.tables[name].create(connection)
    if connection.dialect.name == "postgresql":
        op.execute(
            "update customers set email_domain = split_part(email_key, '@', 2) where email_key is not null"
        )
        reasons = "unsubscribe, complaint, hard_bounce, soft_bounce, manual"
        op.alter_column("suppressions", "reason", comment=reasons)
        holder = "fencing token of the process that holds it; of unknown: that held it"
        op.alter_column("messages", "claim", comment=holder)
    else:
        op.execute(
            "update customers set email_domain = substr(email_key, instr(email_key, '@') + 1) "
            "where email_key is not null"
        )


def _fill_channels(connection: sa.Connection) -> None:
    found = connection.execute(sa.text("select plan_id, definition from plans")).all()
    for plan_id, definition in found:
        read = json.loads(definition) if isinstance(definition, str) else definition
        values = {"channel": read["channel"], "plan_id": plan_id}
        connection.execute(sa.text("update plans set channel = :channel where plan_id = :plan_id"), values)
