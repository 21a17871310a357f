"""What a template may say: the variables and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from lifecycle.settings.models import Campaign, Shop


def first_name(name: str | None) -> str:
    """How to greet somebody: the first word of the name, or what follows the comma in `Doe, Jane`; or ''."""
    family, comma, given = (name or "").strip().partition(",")
    words = (given if comma and given.strip() else family).split(maxsplit=1)
    return words[0] if words else ""


def variables(
    campaign: Campaign, shop: Shop, *, locale: str, name: str | None, unsubscribe_url: str
) -> Mapping[str, Any]:
    sender = shop.sender
    return {
        "customer": SimpleNamespace(name=(name or "").strip(), first_name=first_name(name)),
        "shop": SimpleNamespace(name=shop.name, site=shop.site.rstrip("/")),
        "sender": SimpleNamespace(
            name=sender.name,
            address=sender.address,
            reply_to=sender.reply_to,
            postal_address=sender.postal_address,
        ),
        "campaign": SimpleNamespace(name=campaign.name, variables=SimpleNamespace(**campaign.variables)),
        "locale": locale,
        "unsubscribe_url": unsubscribe_url,
    }
