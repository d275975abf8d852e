"""`vov presets`: which settings there are, and whether this machine can use them."""

from __future__ import annotations

import json

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.report import format_mapping, format_table, to_plain

__all__ = ["command"]

_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group(invoke_without_command=True, short_help="List the presets, or show one.")
@_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the presets; `vov presets show NAME` shows one."""
    if context.invoked_subcommand is not None:
        return
    from vovcodec.codec.models import model_status
    from vovcodec.presets import list_presets, load_preset

    rows = []
    for preset in map(load_preset, list_presets()):
        usable, reason = model_status(preset.backbone.id, preset.backbone.path, preset.backbone.revision)
        row = {"name": preset.name, "backbone": preset.backbone.id, "usable": usable, "model": reason}
        rows.append(row | {"description": preset.description, "efforts": list(preset.efforts)})
    if as_json:
        print(json.dumps(rows))
    else:
        cells = [[r["name"], r["backbone"], r["model"] if r["usable"] else "missing", r["description"]] for r in rows]
        print(format_table(["name", "backbone", "model", "description"], cells))
        # Once per model, not once per preset.
        for reason in dict.fromkeys(r["model"] for r in rows if not r["usable"]):
            print(f"\n{reason}")


@command.command("show", cls=arg.GroupedCommand)
@click.argument("name", metavar="NAME|FILE.yaml")
@click.option("--effort", metavar="EFFORT", help="With this effort applied.")
@_json
def _show(name: str, effort: str | None, as_json: bool) -> None:
    """Show every setting of one preset, defaults included."""
    import dataclasses

    from vovcodec.presets import load_preset, preset_digest, resolve

    preset = load_preset(name)
    if effort is not None:
        preset = resolve(preset, {}, effort)
    title = {"name": preset.name, "description": preset.description, "digest": preset_digest(preset).hex()}
    content = title | {key: value for key, value in dataclasses.asdict(preset).items() if key not in title}
    content = _without_underscores({key: value for key, value in content.items() if value != {}})
    print(json.dumps(to_plain(content)) if as_json else format_mapping(content))


def _without_underscores(content: dict) -> dict:
    """`lambda_` back to the `lambda` of the file."""
    return {
        key.rstrip("_"): _without_underscores(value) if isinstance(value, dict) else value
        for key, value in content.items()
    }
