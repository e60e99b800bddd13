"""`kapelle verify`, `backup` and `restore`: what they say, cheap to import."""

from pathlib import Path
from typing import Annotated

import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.examination import show_findings
from kapelle.cli.output import Exit, Json, out, print_json
from kapelle.runtime.doctor import Finding, Verdict


def verify(config: File = None, json: Json = False) -> None:
    """Check everything the plant keeps: journal, snapshots, registry, history; exit 1 if damaged.

    It only reads, and may run beside the plant.
    """
    # Journal, history and registry are costly to import: only the commands that need them do.
    from kapelle.cli.upkeep import examine

    findings = list(examine(config_of(config)))
    report(findings, json=json)


def report(findings: list[Finding], *, json: bool) -> None:
    """Print findings and leave with the exit code they deserve."""
    damaged = any(finding.verdict is Verdict.BAD for finding in findings)
    if json:
        print_json({"sound": not damaged, "findings": as_rows(findings)})
    else:
        show_findings(findings)
    raise typer.Exit(Exit.FAILED if damaged else Exit.OK)


def as_rows(findings: list[Finding]) -> list[dict[str, str]]:
    """Return findings as JSON shows them."""
    return [
        {"subject": f.subject, "verdict": f.verdict, "found": f.found, "remedy": f.remedy}
        for f in findings
    ]


def backup(
    destination: Annotated[Path, typer.Argument(help="Directory to make; must not exist.")],
    config: File = None,
    json: Json = False,
) -> None:
    """Copy everything the plant keeps into a new directory, while it runs or not."""
    from kapelle.cli.backup import take, told

    settings = config_of(config)
    manifest = take(settings, destination)
    if json:
        print_json(told(destination, manifest))
        return
    taken = manifest.taken
    size = f"{len(manifest.files):,} files, {manifest.bytes / (1 << 20):,.1f} MiB"
    out().print(f"● {destination}: {size}, as of {taken.taken_at}", markup=False, soft_wrap=True)
    for remark in taken.remarks:
        out().print(f"▲ {remark}", markup=False, soft_wrap=True)


def restore(
    source: Annotated[Path, typer.Argument(help="A directory made by kapelle backup.")],
    into: Annotated[
        Path | None, typer.Option(help="Data directory to make; else the configured one.")
    ] = None,
    config: File = None,
    json: Json = False,
) -> None:
    """Check a backup and make a data directory of it; exit 1 where what it holds is damaged."""
    from kapelle.cli.backup import put_back, steps_after, told

    settings = config_of(config)
    manifest, findings = put_back(settings, source, into or settings.plant.data_dir)
    damaged = any(finding.verdict is Verdict.BAD for finding in findings)
    target, next_ = into or settings.plant.data_dir, steps_after(settings, manifest, into)
    if json:
        shown = told(source, manifest) | {"into": str(target), "next": next_}
        print_json(shown | {"sound": not damaged, "findings": as_rows(findings)})
    else:
        show_findings(findings)
        mark = "✕" if damaged else "●"
        out().print(f"{mark} restored into {target}", markup=False, soft_wrap=True)
        for step in next_:
            out().print(f"  → {step}", markup=False, soft_wrap=True)
    raise typer.Exit(Exit.FAILED if damaged else Exit.OK)
