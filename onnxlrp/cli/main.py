"""`onnxlrp`: the commands, and the one place where errors become exit codes.

0 is success, 2 bad input (what was asked cannot be done), 1 a failure at run time. What ends the program from outside
gives 128 and the signal's number, as shells have it.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from onnxlrp import __version__
from onnxlrp.cli.convert import convert
from onnxlrp.cli.demo import demo
from onnxlrp.cli.listing import composites, rules
from onnxlrp.cli.page import page
from onnxlrp.cli.plan import plan
from onnxlrp.cli.run import run
from onnxlrp.cli.triton import triton
from onnxlrp.errors import OnnxLrpError, Problem, RunError, told
from onnxlrp.run.terminal import printable

DEBUG = "ONNXLRP_DEBUG"


class Commands(click.Group):
    """Shows an `OnnxLrpError` as its sentences, and exits with its code. Whatever else is raised is a bug of ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a newcomer needs them."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program: a command, or --help and --version, with a standard output that may take little or nothing.

        A pipe whose reader has gone is click's to end, quietly.
        """
        if sys.stderr is None:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (errors and progress reach nobody, as was asked)
        if sys.stdout is None:
            lament_output("is closed")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # it may have no × and no →, and class names are in any script
        try:
            with terminable():
                return super().main(*args, **kwargs)
        except OSError as error:
            if not output_fails():
                raise
            # Python would complain once more when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            lament_output(f"cannot be written ({error.strerror or error})")

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except OnnxLrpError as error:
            for line in told(error.problems):
                complain(line)
            ctx.exit(1 if isinstance(error, RunError) else 2)
        except KeyboardInterrupt:
            click.echo("\nAborted!", err=True)
            ctx.exit(128 + signal.SIGINT)
        except MemoryError:
            complain("out of memory. Use a smaller --batch, or a machine with more.")
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get(DEBUG) or (isinstance(error, OSError) and output_fails()):
                raise
            said = " ".join(str(error).split())[:300]
            complain(
                f"onnxlrp failed unexpectedly ({type(error).__name__}{': ' if said else ''}{said}). This is a bug of "
                f"onnxlrp, not yours: please report it, with the traceback that {DEBUG}=1 shows."
            )
            ctx.exit(1)


def complain(text: str) -> None:
    """Print an error, with the word in red where there is a terminal."""
    click.echo(f"{click.style('Error', fg='red')}: {printable(text)}", err=True)


def output_fails() -> bool:
    """Whether standard output takes no line any more."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def lament_output(reason: str) -> NoReturn:
    """End the program, since what it has to say reaches nobody."""
    complain(str(Problem("standard output", reason, "send it elsewhere")))
    sys.exit(1)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM unwinds the program as Ctrl-C does, so that no half-written file stays."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    # Python lets no other thread set handlers; and whoever has the signal ignored, or has a handler, wants it so.
    own = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnxlrp")
def main() -> None:
    """Turn an ONNX image classifier into one that also says why.

    \b
    onnxlrp demo                            see what it does, with a classifier that comes along
    onnxlrp plan model.onnx                 see whether yours can be explained, and how
    onnxlrp convert model.onnx              write model.lrp.onnx, which returns relevance too
    onnxlrp run model.lrp.onnx picture.png  see where in a picture the evidence lies

    Exit codes: 0 done, 2 what was asked for cannot be done, 1 it failed on the way.
    """


for command, purpose in (
    (demo, "Explain a brain MRI with a classifier that comes along."),
    (plan, "Show every layer of a model with its rule, and every problem."),
    (convert, "Write an explainer: the classifier, and relevance too."),
    (run, "Explain pictures: heatmaps, and a table of the classes."),
    (page, "Write a web page that explains pictures in the browser."),
    (triton, "Put an explainer into a model repository of Triton."),
    (composites, "List the composites: which layer gets which rule."),
    (rules, "List the rules: formula, parameters, paper."),
):
    command.short_help = purpose
    main.add_command(command)
