"""`kapelle order …`, `hold`, `release`: talking to a running plant."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import Exit, Json, out, print_table, print_told, say
from kapelle.cli.profiles import profile_of, tell_intervals
from kapelle.cli.quantities import duration_s, moment
from kapelle.errors import Conflict, Invalid, Problem, TokenRefused, Unreachable
from kapelle.words import percent, power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.client import Client
    from kapelle.api.shapes import HoldTold, OrderTold

orders = typer.Typer(no_args_is_help=True, help="Order power, and follow what becomes of it.")

_HELD_AGAIN_S = 0.5

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="KAPELLE_URL", help="Of the plant; default from the config."),
]
Number = Annotated[int, typer.Argument(metavar="ORDER")]
Megawatts = Annotated[float | None, typer.Option("--mw", help="Change in MW; + is towards grid.")]
Why = Annotated[str, typer.Option("--reason", help="Kept in the journal.")]
Staged = Annotated[
    bool, typer.Option("--staged", help="Begin with a few devices; go on as meters prove them.")
]
Randomise = Annotated[
    str | None, typer.Option(help="Each device begins and ends at its own moment within this: 5m.")
]
Kilowatts = Annotated[float | None, typer.Option("--kw", help="The same in kW.")]


Length = Annotated[
    str | None, typer.Option("--for", help="How long: 90s, 20m, 1h30m; default 15m.")
]
Profile = Annotated[
    str | None,
    typer.Option(help="Instead of --kw and --for: 15m:500,15m:-200 (kW), or a CSV file: for,kw."),
]


@contextmanager
def plant(file: Path | None, url: str | None) -> Iterator["Client"]:
    """Connect to the plant a configuration describes, or to another."""
    from kapelle.api.client import Client

    config = config_of(file)
    scheme = "https" if config.api.tls_certificate else "http"
    host = "127.0.0.1" if config.api.host in ("0.0.0.0", "::") else config.api.host  # noqa: S104  # not bound to, only looked at
    token, origin = _token(config.token_file)
    with Client(url or f"{scheme}://{host}:{config.api.port}", token) as client:
        try:
            yield client
        except TokenRefused as error:
            remedy = "name that plant's --config, or set KAPELLE_TOKEN to a token of it"
            raise TokenRefused(f"{error} from {origin}; {remedy}") from error


@orders.command()
def create(
    mw: Megawatts = None,
    kw: Kilowatts = None,
    length: Length = None,
    profile: Profile = None,
    resource: Annotated[str, typer.Option(help="Named set of devices.")] = "all",
    at: Annotated[str | None, typer.Option(help="Start: +5m, 14:30 (UTC), RFC 3339.")] = None,
    tolerance: Annotated[float, typer.Option(help="Accepted deviation, 0-1.")] = 0.02,
    key: Annotated[str, typer.Option(help="Repeating it repeats nothing.")] = "",
    why: Annotated[str, typer.Option("--why", help="What it is for; kept with it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Order nothing; say what if.")] = False,
    staged: Staged = False,
    randomise: Randomise = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Order a change of power against what the devices do now; + is towards the grid."""
    intervals = profile_of(profile)
    if intervals is not None and length is not None:
        remedy = "leave out --for: a profile's intervals say how long it is"
        raise Invalid("order", [Problem("--for", "stands beside --profile", remedy)])
    target_w = watts(mw, kw) if intervals is None or mw is not None or kw is not None else None
    seconds = duration_s(length or "15m") if intervals is None else None
    with plant(config, url) as client:
        if dry_run:
            preview = client.preview_order(
                target_w=target_w, profile=intervals, resource=resource, duration_s=seconds
            )
            if json:
                print_told(preview)
            else:
                tell_promise(
                    preview.committed_w, preview.declined_w, preview.reason, preview.firm_w
                )
                tell_intervals(preview.profile)
                say("nothing was ordered (--dry-run)")
            return
        made = client.create_order(
            target_w=target_w,
            profile=intervals,
            resource=resource,
            duration_s=seconds,
            starts_at=moment(at, datetime.now(UTC)) if at else None,
            tolerance=tolerance,
            why=why,
            key=key,
            staged=staged or None,
            randomise_s=duration_s(randomise) if randomise else None,
        )
    tell_order(made, json=json)
    if made.status == "declined":
        raise typer.Exit(Exit.REJECTED)


@orders.command("ls")
def list_orders(config: File = None, url: Url = None, json: Json = False) -> None:
    """List orders, newest first."""
    with plant(config, url) as client:
        told = client.orders()
    if json:
        print_told(told)
        return
    rows = [order_row(order) for order in told.orders]
    print_table(rows, order_columns(), "no orders yet: kapelle order create --mw 1 --for 20m")


@orders.command()
def show(order: Number, config: File = None, url: Url = None, json: Json = False) -> None:
    """Show one order."""
    with plant(config, url) as client:
        tell_order(client.order(order), json=json)


@orders.command()
def amend(
    order: Number,
    mw: Megawatts = None,
    kw: Kilowatts = None,
    length: Annotated[str | None, typer.Option("--for", help="From now: 90s, 20m.")] = None,
    profile: Profile = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Change the target or the end of an order, or what is left of its profile."""
    target_w = watts(mw, kw) if mw is not None or kw is not None else None
    intervals = profile_of(profile)
    if target_w is None and length is None and intervals is None:
        remedy = "give --mw, --kw, --for or --profile"
        problem = Problem("order amend", "nothing to change", remedy)
        raise Invalid("order", [problem])
    seconds = duration_s(length) if length else None
    with plant(config, url) as client:
        made = client.amend_order(order, target_w=target_w, profile=intervals, duration_s=seconds)
    tell_order(made, json=json)


@orders.command()
def cancel(order: Number, config: File = None, url: Url = None, json: Json = False) -> None:
    """End an order before its time; its devices are released."""
    with plant(config, url) as client:
        tell_order(client.cancel_order(order), json=json)


def hold(reason: Why = "", config: File = None, url: Url = None, json: Json = False) -> None:
    """Stop every command of the plant at once."""
    with plant(config, url) as client:
        _tell_hold(client.hold(reason), json=json)


def release(reason: Why = "", config: File = None, url: Url = None, json: Json = False) -> None:
    """Allow commands again after `hold`; exit code 4 where something holds the plant at once again.

    A file HOLD in the data directory does, as long as it is there.
    """
    with plant(config, url) as client:
        told = client.release_hold(reason)
        # The file is looked for five times a second.
        time.sleep(_HELD_AGAIN_S)
        held = [each.text for each in client.status().reasons if each.code == "commands-held"]
    if held and not told.held:
        raise Conflict(f"released, and held again at once: {held[0]}")
    _tell_hold(told, json=json)


def watts(mw: float | None, kw: float | None) -> float:
    """Return the target in W. Raises Invalid unless exactly one of the two is given."""
    if (mw is None) == (kw is None):
        what = "one of them is needed" if mw is None else "both are given"
        raise Invalid("target", [Problem("--mw, --kw", what, "give one")])
    return mw * 1e6 if mw is not None else (kw or 0.0) * 1e3


def _token(file: Path) -> tuple[str, str]:
    """Return the token to speak with, and where it is from."""
    if token := os.environ.get("KAPELLE_TOKEN"):
        return token, "KAPELLE_TOKEN"
    try:
        return file.read_text(encoding="ascii").strip(), str(file)
    except (OSError, UnicodeDecodeError) as error:
        remedy = "start the plant here (kapelle up), name its --config, or set KAPELLE_TOKEN"
        raise Unreachable(f"no token in {file}: {error}; {remedy}") from error


def order_columns() -> tuple[str, ...]:
    """Return what is told of an order in a table."""
    return ("order", "status", "resource", "target", "promised", "starts", "ends", "reason", "why")


def order_row(order: "OrderTold") -> dict[str, object]:
    """Return an order as a row of it."""
    return {
        "order": order.order_no,
        "status": order.status,
        "resource": order.resource,
        "target": power(order.target_w) + (" …" if order.profile else ""),
        "promised": power(order.committed_w),
        "starts": f"{order.starts_at:%Y-%m-%d %H:%M:%S}Z",
        "ends": f"{order.ends_at:%H:%M:%S}Z",
        "reason": order.reason,
        "why": order.why,
    }


def tell_order(order: "OrderTold", *, json: bool) -> None:
    """Say what became of an order."""
    if json:
        print_told(order)
        return
    out().print(
        f"order {order.order_no} · {order.status} · {power(order.target_w)} of {order.resource}"
        f" · {order.starts_at:%H:%M:%S}Z to {order.ends_at:%H:%M:%S}Z",
        markup=False,
    )
    if order.why:
        out().print(f"for: {order.why}", markup=False)
    tell_intervals(order.profile)
    if order.planned:
        tell_promise(order.committed_w or 0.0, order.declined_w or 0.0, order.reason, order.firm_w)
        if order.stage is not None and order.complete_at is None:
            say(f"it begins in stages: {percent(order.stage)} of its devices so far")
    else:
        say(f"nothing is promised yet: kapelle order why {order.order_no} says what it waits for")


def _tell_hold(told: "HoldTold", *, json: bool) -> None:
    if json:
        print_told(told)
    elif told.held:
        out().print("[bold yellow]▲ held[/]: no command leaves; kapelle release ends it")
    else:
        out().print("● released: commands leave again")


def tell_promise(
    committed_w: float, declined_w: float, reason: str, firm_w: float | None = None
) -> None:
    """Say what is promised, and why not more."""
    text = f"promised {power(committed_w)}"
    if firm_w is not None:
        text += f" ({power(firm_w)} are 95 % sure)"
    if declined_w:
        text += f" · ▲ declined {power(declined_w)}: {reason}"
    out().print(text, markup=False)
