"""`vov pretrain`: hands its arguments to `vovcodec.pretraining.main`, which has its own --help."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Train the embedded model (vov pretrain --help).",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Train the embedded model."""
    from vovcodec.pretraining.main import main

    context.exit(main(list(arguments)) or 0)
