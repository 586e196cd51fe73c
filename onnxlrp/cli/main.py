"""`onnxlrp`: the commands, and the one place where errors become exit codes.

0 is success, 2 bad input (what was asked cannot be done), 1 a failure at run time.
"""

from __future__ import annotations

import os
import sys

import click

from onnxlrp import __version__
from onnxlrp.cli.convert import convert
from onnxlrp.cli.demo import demo
from onnxlrp.cli.listing import composites, rules
from onnxlrp.cli.page import page
from onnxlrp.cli.plan import plan
from onnxlrp.cli.run import run
from onnxlrp.cli.triton import triton
from onnxlrp.errors import OnnxLrpError, RunError, told
from onnxlrp.run.terminal import printable

DEBUG = "ONNXLRP_DEBUG"


class Commands(click.Group):
    """Shows an `OnnxLrpError` as its sentences, and exits with its code. Whatever else is raised is a bug of ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a newcomer needs them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except OnnxLrpError as error:
            for line in told(error.problems):
                complain(line)
            ctx.exit(1 if isinstance(error, RunError) else 2)
        except BrokenPipeError:
            # The reader of our output has gone; Python would complain once more when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except MemoryError:
            complain("out of memory. Use a smaller --batch, or a machine with more.")
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
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
