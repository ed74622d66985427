"""The command group: an overview without arguments, and one line instead of a traceback."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from normalisr_dask.cli import limma_commands, normalisr_commands, pipeline_commands
from normalisr_dask.cli.messages import (
    PROGRAM,
    describe,
    ignore_abandoned_coroutines,
    ignore_failing_destructors,
    ignore_further_failures,
    log_to_stderr,
    one_line_warnings,
    tell,
)

DEBUG_VARIABLE = "NORMALISR_DASK_DEBUG"
FAILED = 2
INTERRUPTED, TERMINATED = 130, 143  # what shells give for a program that Ctrl-C or SIGTERM ended
ENDS = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}

# Typer bundles click in some versions and imports it in others; what it exports is the same in all.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])

OVERVIEW = """\
Normalisation, differential expression and co-expression of single-cell counts, also where they do not fit in memory.

1. See it work: a simulated screen, tested and compared with its truth, in a minute
     normalisr-dask demo
2. Bring in counts, once: Cell Ranger folders and .h5, .h5ad, Matrix Market, tables
     normalisr-dask ingest filtered_feature_bc_matrix/ counts.zarr --obs cells.tsv
3. Test cell types, guides or conditions against every gene, and all pairs of genes; leaves results/report.html
     normalisr-dask run counts.zarr -o results --groupby cell_type --coex
4. See what is in a store, or how far a run is, what came out and where
     normalisr-dask info results
5. Compare donors rather than cells: samples of theirs, for the linear models of vooma
     normalisr-dask pseudobulk counts.zarr samples.h5ad --by donor,cell_type

Guides from their UMI counts (assign-guides), linear models (vooma), Normalisr's own eleven commands (qc_reads, …):
     normalisr-dask --help
Everything about one of them:
     normalisr-dask run --help
"""


class OneLineGroup(TyperGroup):
    """Runs a command and turns everything that can go wrong into one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - Typer's signature
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> Any:
        """Run the command line and leave Python.

        Parameters
        ----------
        args
            Arguments; by default those of the process.
        prog_name, complete_var, standalone_mode, windows_expand_args, extra
            Of Typer, and not used: the program always has its name, and reports errors itself.
        """
        given = list(sys.argv[1:] if args is None else args)
        arguments = [argument for argument in given if argument != "--debug"]
        debug = len(arguments) < len(given) or bool(os.environ.get(DEBUG_VARIABLE))
        with one_line_warnings():
            sys.exit(self._exit_code(arguments, debug=debug))

    def _exit_code(self, arguments: list[str], *, debug: bool) -> int:
        """Run the command and tell what went wrong."""
        try:
            code = super().main(arguments, PROGRAM, standalone_mode=False)
        except KeyboardInterrupt:  # Typer turns most of them into an exit code
            code = INTERRUPTED
        except SystemExit as end:
            code = end.code
        except UsageError as error:
            message = usage_message(error, arguments)
            joint = " Try" if message.endswith("?") else "; try"
            tell("error", f"{message}{joint} '{self._path(error, arguments)} --help'")
            return FAILED
        except Exception as error:
            if debug:
                raise
            tell("error", describe(error))
            return FAILED
        if code in ENDS:
            tell(ENDS[code], "run the same command again to go on")
        return code if isinstance(code, int) else 0

    def _path(self, error: Any, arguments: list[str]) -> str:
        """Return the command that a usage error is about, which not all of them know."""
        if error.ctx is not None:
            return error.ctx.command_path
        return " ".join([PROGRAM, *[argument for argument in arguments[:1] if argument in self.commands]])


def usage_message(error: Any, arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line, and what was typed where that is left out.

    Parameters
    ----------
    error
        What Typer raised; its words depend on the versions of Typer and of what it checks values with.
    arguments
        The command line.
    """
    message = str(error.format_message()).rstrip(".").replace("Value error, ", "")
    possible = getattr(error, "possibilities", None)
    if possible:
        return f"{error.message}; did you mean {' or '.join(possible)}?"
    names = getattr(getattr(error, "param", None), "opts", [])
    for typed, value in pairwise(arguments):
        if typed in names and value not in message:
            return f"{message}, found {value!r}"
    return message


app = typer.Typer(
    cls=OneLineGroup,
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
pipeline_commands.register(app)
limma_commands.register(app)
normalisr_commands.register(app)


@app.callback(help=OVERVIEW.partition("\n")[0])
def show_overview(
    context: typer.Context,
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("-v", help="Tell on stderr what is done, step by step.")] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help=f"Show tracebacks; so does {DEBUG_VARIABLE}=1 in the environment.")
    ] = False,
) -> None:
    """Print the overview, or the version, if there is no command."""
    if verbose:
        log_to_stderr()
    if show_version:
        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(OVERVIEW, nl=False)


def terminate(_number: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C: workers go, locks are given back; a second SIGTERM does not come between."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore_failing_destructors()
    sys.exit(TERMINATED)


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as Python does after Ctrl-C."""
    ignore_failing_destructors()
    signal.default_int_handler(number, frame)


def main() -> None:
    """Run the command line of this process."""
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background of a script it is ignored
        signal.signal(signal.SIGINT, interrupt)
    ignore_abandoned_coroutines()
    ignore_further_failures()
    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said; Python's own end would show tracebacks
