"""A small real run with a report, and a browser to look at it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from playwright.sync_api import Browser, Error, sync_playwright
from report_runs import run_settings

from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.pipeline import run
from normalisr_dask.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def finished_run(two_workers: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run with everything: targets, controls, permutations, covariates, groupings too small."""
    settings = run_settings(tmp_path_factory.mktemp("report"))
    with (
        connect(ClusterSettings(scheduler=two_workers.scheduler_address)) as client,
        pytest.warns(UserWarning, match="1 of 12 guides are not among the groupings and are ignored"),
        pytest.warns(UserWarning, match="1 of 11 groupings have fewer than 10 cells"),
    ):
        run(settings, client)
    return Path(settings.output)


@pytest.fixture(scope="session")
def report(finished_run: Path) -> Path:
    """The report of that run."""
    return write_report(finished_run)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"{program} does not start: {error}")
        yield browser
        browser.close()
