"""The table of commands; the only place that prints errors and sets exit codes.

Exit codes: 0 done, 1 an expected failure (one message), 2 wrong usage, 128 + n ended by signal n (130: Ctrl-C).
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart import __version__
from headstart.errors import HeadstartError
from headstart_cli.backbones_command import backbones
from headstart_cli.cache_commands.cluster_command import class_folders, cluster
from headstart_cli.cache_commands.exchange_commands import convert, import_features, merge
from headstart_cli.cache_commands.extract_command import extract
from headstart_cli.cache_commands.inspect_command import inspect
from headstart_cli.cache_commands.suggest_command import suggest
from headstart_cli.cache_commands.verify_repair_commands import repair, verify
from headstart_cli.console import PrintableFormatter, print_error, quiet_native_messages
from headstart_cli.demo_command import demo
from headstart_cli.doctor_weights_commands import doctor, weights
from headstart_cli.head_commands.benchmark_command import benchmark
from headstart_cli.head_commands.evaluate_command import evaluate
from headstart_cli.head_commands.explain_command import explain
from headstart_cli.head_commands.export_command import export
from headstart_cli.head_commands.fit_command import fit
from headstart_cli.head_commands.list_command import heads
from headstart_cli.head_commands.parameter_options import FitCommand
from headstart_cli.head_commands.predict_command import predict
from headstart_cli.help_page import Command, help_text

#: Name → function. The first three are commands of their own as well.
COMMANDS: dict[str, Callable[..., Any]] = {
    "extract-features": extract,
    "fit-head": fit,
    "benchmark-heads": benchmark,
    "inspect": inspect,
    "verify": verify,
    "repair": repair,
    "heads": heads,
    "predict": predict,
    "explain": explain,
    "evaluate": evaluate,
    "export": export,
    "convert": convert,
    "merge": merge,
    "cluster": cluster,
    "class-folders": class_folders,
    "suggest": suggest,
    "import": import_features,
    "backbones": backbones,
    "weights": weights,
    "doctor": doctor,
    "demo": demo,
}


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headstart {__version__}")
        raise typer.Exit


def make_app(*names: str) -> typer.Typer:
    """Return the application with these commands; a single one needs no name on the command line."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Image classifiers by transfer learning: extract features once, fit heads in seconds.",
    )
    if len(names) > 1:
        app.callback()(options_of_all)
    for name in names:
        app.command(name, cls=FitCommand if name == "fit-head" else Command, help=help_text(COMMANDS[name]))(
            COMMANDS[name]
        )
    return app


def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Image classifiers by transfer learning: extract features once, fit heads in seconds."""


def run(app: typer.Typer) -> None:
    """Run the application and leave with its exit code; expected errors are printed without a traceback."""
    open_closed_streams()
    log = logging.StreamHandler()
    log.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[log])
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that the terminal cannot show must not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        check_encoding(sys.getfilesystemencoding())
        with quiet_native_messages():
            try:
                app()
            finally:
                sys.stdout.flush()  # so that a full disk is an error of the command like any other
    except HeadstartError as error:
        print_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        print_error("Interrupted.")
        sys.exit(130)
    except OSError as error:
        drop_output()
        if error.errno != errno.EPIPE:  # the reader of a pipe may stop early
            print_error(f"{error.filename or 'Writing failed'}: {error.strerror or error}")
        sys.exit(1)


def open_closed_streams() -> None:
    """Open standard streams that were closed (``>&-``) on the null device.

    Otherwise the first opened files would get their numbers, and output of libraries would be written into them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, nowhere)


def check_encoding(encoding: str) -> None:
    """Raise HeadstartError if file names are not encoded in UTF-8, as paths in a cache are."""
    if encoding.lower().replace("-", "") != "utf8":
        raise HeadstartError(
            f"File names are encoded in {encoding} here (locale and PYTHONUTF8), and headstart needs UTF-8.",
            hint="Set PYTHONUTF8=1 and try again.",
        )


def drop_output() -> None:
    """Discard pending output that cannot be written; Python would try again at exit."""
    with suppress(OSError):
        sys.stdout.flush()
        return
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def main() -> None:
    run(make_app(*COMMANDS))


def extract_features() -> None:
    run(make_app("extract-features"))


def fit_head() -> None:
    run(make_app("fit-head"))


def benchmark_heads() -> None:
    run(make_app("benchmark-heads"))
