from __future__ import annotations

import pytest

from sandbox.stock import Stock
from tests.platforms.goods import small_stock


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """The small stock, for tests that change nothing."""
    return small_stock(tmp_path_factory.mktemp("shops"))
