from __future__ import annotations

import pickle

import pytest

from lifecycle.errors import ConfigError
from lifecycle.platforms import ENTITIES, open_platform
from lifecycle.settings import Config
from lifecycle.settings.models import Pulling, Shop


@pytest.fixture(params=["atlas", "harbour"])
def shop(request: pytest.FixtureRequest, config: Config) -> Shop:
    return config.shop(request.param)


def test_a_missing_token_names_its_variable(shop: Shop) -> None:
    with pytest.raises(ConfigError, match=f"shop {shop.name}: environment variable {shop.token_env}"):
        open_platform(shop, Pulling(), {shop.token_env: " "})


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://shop.example.com", "would send the token unencrypted; use https://"),
        ("shop.example.com", "is no web address"),
        ("ftp://shop.example.com", "is no web address"),
        ("https://", "is no web address"),
    ],
)
def test_an_unusable_url_is_a_config_error(shop: Shop, url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f'^config/shops.yaml: {shop.name}.url "{url}" {sentence}'):
        open_platform(shop.model_copy(update={"url": url}), Pulling(), {shop.token_env: "a:b"})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081", "http://localhost/", "https://shop.example.com/"])
def test_plain_http_is_for_this_machine(shop: Shop, url: str) -> None:
    platform = open_platform(shop.model_copy(update={"url": url}), Pulling(), {shop.token_env: "a:b"})
    assert tuple(platform.entities) == tuple(ENTITIES[shop.platform]) == ("customers", "orders")


def test_a_platform_travels_between_processes(shop: Shop) -> None:
    platform = open_platform(shop, Pulling(), {shop.token_env: "a:b"})
    assert pickle.loads(pickle.dumps(platform)).name == platform.name


def test_a_shop_of_files_has_nothing_to_pull(shop: Shop) -> None:
    files = shop.model_copy(update={"platform": "file"})
    with pytest.raises(ConfigError, match=f"tern import orders FILE --shop {shop.name}"):
        open_platform(files, Pulling(), {})
