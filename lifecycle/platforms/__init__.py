"""Where orders and customers come from. `open_platform` hands out the connector that a shop needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from lifecycle.errors import ConfigError
from lifecycle.platforms.base import Platform
from lifecycle.platforms.calling import Caller, check_url
from lifecycle.platforms.shopify import Shopify
from lifecycle.platforms.woocommerce import WooCommerce
from lifecycle.settings.models import Pulling, Shop

ENTITIES: Mapping[str, Sequence[str]] = {
    "shopify": Shopify.entities,
    "woocommerce": WooCommerce.entities,
    "file": (),
}
"""What can be pulled from a platform, in the order in which to pull it."""


def open_platform(
    shop: Shop,
    pulling: Pulling,
    env: Mapping[str, str] = os.environ,
    *,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Platform:
    """The shop's connector; nothing is called yet. Raises ConfigError for a missing token or unusable url."""
    if shop.platform == "file":
        raise ConfigError(
            f"shop {shop.name} has no platform to pull from; use: tern import orders FILE --shop {shop.name}"
        )
    url = check_url(shop)
    token = env.get(shop.token_env, "").strip()
    if not token:
        raise ConfigError(f"shop {shop.name}: environment variable {shop.token_env} with its token is not set")
    if shop.platform == "shopify":
        return Shopify(Caller(shop, pulling, "Shopify", transport, sleep), url, token)
    return WooCommerce(Caller(shop, pulling, "WooCommerce", transport, sleep), url, token)
