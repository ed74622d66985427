"""What the shell offers when the tab key is pressed, beyond the names of commands and options."""

import json
from pathlib import Path

import typer

#: Where Zarr formats 3 and 2 keep what AnnData says of a table.
ATTRIBUTES = ("zarr.json", ".zattrs")


def columns_of_store(context: typer.Context, incomplete: str) -> list[str]:
    """Return the columns of the cell table of the store typed before, as far as they fit; the last one of A,B,….

    Reads one small file of a store on disk, and no store at a URL: the shell waits for this.

    Parameters
    ----------
    context
        Of the command as typed so far.
    incomplete
        What is typed of the value.
    """
    before, comma, begun = incomplete.rpartition(",")
    # of a command line whose last option lacks its value, arguments are not given their names yet
    store = next((typed for typed in (context.params.get("store"), *context.args) if typed), "")
    columns = _columns(Path(store))
    return [f"{before}{comma}{name}" for name in columns if name.startswith(begun) and name not in before.split(",")]


def _columns(store: Path) -> list[str]:
    """Return the columns of a store's cell table; none where there is no such store."""
    for name in ATTRIBUTES:
        try:
            content = json.loads((store / "obs" / name).read_text(encoding="utf-8"))
            columns = content.get("attributes", content)["column-order"]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        return [str(column) for column in columns]
    return []
