"""`vov completion`: the script that makes a shell complete commands, options and their choices."""

from __future__ import annotations

import click

from vovcodec.cli.app import COMPLETION_VARIABLE

__all__ = ["command", "complete"]

_SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell; for example, in ~/.bashrc:  eval "$(vov completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)(context.find_root().command, {}, "vov", COMPLETION_VARIABLE)
    print(found.source_template % found.source_vars())


def complete(root: click.Command, instruction: str) -> int:
    """Prints the completions that the shell asks for in its environment; returns the exit code."""
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "vov", COMPLETION_VARIABLE, instruction)
