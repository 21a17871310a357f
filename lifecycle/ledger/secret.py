"""Is TERN_SECRET the one that this ledger was made with?"""

from __future__ import annotations

from sqlalchemy import Connection, select

from lifecycle.addresses import address_hash
from lifecycle.db.schema import customers
from lifecycle.errors import ConfigError


def check_secret(connection: Connection, secret: bytes) -> None:
    """Raises ConfigError where it is not: suppressions would be missed and links in sent mails be dead."""
    query = select(customers.c.email_key, customers.c.email_hash).where(customers.c.email_hash.is_not(None))
    known = connection.execute(query.limit(1)).one_or_none()
    if known is not None and address_hash(secret, "email", known.email_key) != known.email_hash:
        raise ConfigError(
            "TERN_SECRET is not the one that this database was filled with; suppressions would be missed, so "
            "nothing is sent; set the old TERN_SECRET again"
        )
