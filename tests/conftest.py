"""Options and data that all tests share."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", default=False, help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets, named by NORMALISR_DASK_TEST_DATA."""
    folder = os.environ.get("NORMALISR_DASK_TEST_DATA")
    if not folder:
        pytest.skip("NORMALISR_DASK_TEST_DATA names no folder with the real data")
    return Path(folder)
