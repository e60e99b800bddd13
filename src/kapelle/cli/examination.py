"""`kapelle doctor`: what the machine lacks, and how durable the journal is on it."""

from dataclasses import replace

import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import Exit, Json, out, print_json
from kapelle.config import Config
from kapelle.journal.durability import durability
from kapelle.runtime.doctor import Finding, Verdict, examine

_MARK = {
    Verdict.OK: "[green]● ok  [/]",
    Verdict.WARN: "[yellow]▲ warn[/]",
    Verdict.BAD: "[bold red]✕ bad [/]",
}


def doctor(config: File = None, json: Json = False) -> None:
    """Say what this machine lacks and how durable the journal is; exit 1 where it is unsafe."""
    findings = find(config_of(config))
    unsafe = any(finding.verdict is Verdict.BAD for finding in findings)
    if json:
        rows = [
            {"subject": f.subject, "verdict": f.verdict, "found": f.found, "remedy": f.remedy}
            for f in findings
        ]
        print_json({"safe": not unsafe, "findings": rows})
    else:
        show_findings(findings)
    raise typer.Exit(Exit.FAILED if unsafe else Exit.OK)


def find(config: Config) -> list[Finding]:
    """Return everything there is to say about this machine for this configuration."""
    directory = config.journal_directory
    disk = durability(directory)
    verdict = Verdict.OK if disk.ok else Verdict.BAD
    if config.journal.synchronous != "full":
        verdict, disk = (
            Verdict.WARN,
            replace(disk, text="synchronous = off: a power cut loses data"),
        )
    return [Finding("journal", verdict, disk.text), *examine(directory, ports_of(config))]


def ports_of(config: Config) -> dict[str, tuple[str, int]]:
    """Return the addresses the plant will listen on, by what for."""
    return {
        "MQTT": (config.mqtt.host, config.mqtt.port),
        "the API": (config.api.host, config.api.port),
    }


def show_findings(findings: list[Finding]) -> None:
    """Print findings, each with what helps below it."""
    console = out()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        console.print(f"{_MARK[finding.verdict]} {finding.subject:<{width}}  ", end="")
        console.print(finding.found, markup=False, soft_wrap=True)
        if finding.remedy:
            remedy = f"{'':<{width + 8}}  → {finding.remedy}"
            console.print(remedy, style="dim", markup=False, soft_wrap=True)
