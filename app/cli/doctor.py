"""``sifdeck doctor``: what this host can do, and what would help."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--support", is_flag=True, help="Print a report to paste, without secrets.")
def doctor(*, as_json: bool, support: bool) -> int:
    """Say what this host can and cannot do for containers.

    Every probe is made by doing it. The exit status is 1 when something cannot be done at all.
    """
    from backend.doctor import examine, findings_json, findings_text, support_report

    findings = examine()
    if as_json:
        click.echo(findings_json(findings))
    else:
        click.echo(support_report(findings) if support else findings_text(findings))
    return int(any(finding.state == "missing" for finding in findings))
