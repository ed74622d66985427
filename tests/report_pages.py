"""The report in a real browser: pages that are watched, what their tables show, and whether they are accessible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

#: What every page of the report is to satisfy: WCAG 2.2 A and AA, and what axe calls good practice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def watched_page(browser: Browser, report: Path) -> Iterator[Page]:
    """Open a report; what the console says and what is asked for beside the file fails."""
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(5000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: complaints.append(f"request: {request.url}"))
        page.goto(report.as_uri())
        yield page
        assert complaints == [f"request: {report.as_uri()}"]


def column(page: Page, table: str, number: int) -> list[str]:
    """What the visible rows of a table show in a column, from 1."""
    cells = page.locator(f"#{table} tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def accessibility_violations(page: Page) -> list[tuple[str, str]]:
    """Rules that the page breaks, with the elements that do."""
    found: Any = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}}).response["violations"]
    return [(violation["id"], node["html"][:120]) for violation in found for node in violation["nodes"]]
