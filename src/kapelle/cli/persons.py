"""`kapelle person`: who speaks to the API in his own name, straight in the registry.

It works whether the plant runs or not; a running plant notices within a second.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from kapelle.cli.configuration import File
from kapelle.cli.devices import registry
from kapelle.cli.output import Json, out, print_json, print_table, say
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

persons = typer.Typer(no_args_is_help=True, help="Give persons tokens of their own.")

Name = Annotated[str, typer.Argument(metavar="NAME")]


@persons.command()
def add(name: Name, config: File = None, json: Json = False) -> None:
    """Give a person a token of his own. It is shown once."""
    with registry(config) as opened:
        token = opened.add_person(name, SystemClock().now_ns())
    if json:
        print_json({"name": name, "token": token})
        return
    out().print(token, markup=False)
    say(f"shown once; {name} uses it as KAPELLE_TOKEN, or as the bearer token of the API")


@persons.command("ls")
def list_persons(config: File = None, json: Json = False) -> None:
    """List who has a token, or had one."""
    with registry(config) as opened:
        found = opened.persons()
    rows: list[dict[str, object]] = [
        {
            "name": one.name,
            "token": f"kp_{one.prefix}_…",
            "since": _moment(one.created_at_ns),
            "revoked": _moment(one.revoked_at_ns) if one.revoked_at_ns else "",
        }
        for one in found
    ]
    if json:
        print_json({"persons": rows})
        return
    print_table(rows, ("name", "token", "since", "revoked"), "nobody yet: kapelle person add NAME")


@persons.command()
def revoke(name: Name, config: File = None, json: Json = False) -> None:
    """Take a person's token back: within a second it is good for nothing."""
    with registry(config) as opened:
        opened.revoke_person(name, SystemClock().now_ns())
    if json:
        print_json({"name": name, "revoked": True})
        return
    say(f"{name} has no token any more")


def _moment(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}Z"
