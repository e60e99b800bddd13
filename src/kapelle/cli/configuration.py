"""`kapelle config`: what is set, from where, and whether it can be used."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kapelle.cli.output import Json, out, print_json
from kapelle.config import Config, Loaded, as_toml, load

commands = typer.Typer(no_args_is_help=True, help="Show and check the configuration.")

File = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="KAPELLE_CONFIG", help="TOML file.", show_default="kapelle.toml"
    ),
]


def loaded(file: Path | None) -> Loaded:
    """Return the configuration of a file and this process's environment."""
    return load(file, os.environ)


def config_of(file: Path | None) -> Config:
    """Return just the settings."""
    return loaded(file).config


@commands.command()
def show(
    file: File = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each comes from.")] = False,
    json: Json = False,
) -> None:
    """Print every value in force; secrets are hidden."""
    found = loaded(file)
    if not json:
        out().print(as_toml(found, origin=origin), markup=False, soft_wrap=True)
        return
    sections: dict[str, dict[str, object]] = {}
    for setting in found.settings:
        value = {"value": setting.shown, "origin": setting.origin} if origin else setting.shown
        sections.setdefault(setting.section, {})[setting.key] = value
    print_json(sections)


@commands.command()
def check(file: File = None, json: Json = False) -> None:
    """Read the configuration and say whether it can be used; exit 2 where it cannot."""
    changed = [setting for setting in loaded(file).settings if setting.origin != "default"]
    if json:
        print_json({"usable": True, "changed": len(changed)})
    else:
        out().print(f"● usable; {len(changed)} values differ from the defaults")
