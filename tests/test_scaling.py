"""docs/scaling.md shows what the planner says."""

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def test_the_table_is_the_planners():
    script = runpy.run_path(str(REPOSITORY / "benchmarks" / "scaling.py"))
    table = script["table"]()
    assert table.count("\n") == 1 + len(script["CELLS"]) * len(script["WORKERS"])
    assert table in (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
