"""The two stand-in shops of config/shops.yaml, and who lives where when the input does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ShopStand:
    name: str
    platform: str
    currency: str
    """Amounts of the input are taken as amounts in it, whatever they were."""
    timezone: str
    countries: Mapping[str, float]
    """Shares of its customers, made up, for inputs without a country."""


SHOPS = {
    shop.name: shop
    for shop in (
        ShopStand(
            "atlas",
            "shopify",
            "EUR",
            "Europe/Paris",
            {"FR": 0.45, "DE": 0.20, "BE": 0.12, "ES": 0.09, "IT": 0.08, "CH": 0.06},
        ),
        ShopStand(
            "harbour",
            "woocommerce",
            "GBP",
            "Europe/London",
            {"GB": 0.60, "IE": 0.15, "US": 0.12, "FR": 0.08, "CA": 0.05},
        ),
    )
}
