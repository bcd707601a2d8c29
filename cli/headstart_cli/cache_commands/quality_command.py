"""``headstart inspect --quality``: problems of the images of a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from headstart.texts import counted
from headstart_cli.console import err, out, print_json, printable, said, shown

if TYPE_CHECKING:
    from headstart.report.html_pages import Example, Finding, QualityReport

#: Cases shown of each finding, and images named of each.
SHOWN_EXAMPLES, SHOWN_IMAGES = 3, 2

#: Severity → how it is shown.
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def inspect_data(cache: str, *, data: Path | None, html: Path | None, as_json: bool) -> None:
    """Check the images and print the findings as a table or JSON; optionally write a page."""
    from headstart.quality import inspect_quality

    report = inspect_quality(cache, data if html else None)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)
    if html:
        write_page(report, html)
        missing = f" {report.thumbnails_missing}" if report.thumbnails_missing else ""
        err.print(shown(f"Page: {html}, {len(report.thumbnails):,} thumbnails.{printable(missing)}"), soft_wrap=True)


def write_page(report: QualityReport, html: Path) -> None:
    """Write the page.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    from headstart.errors import DataError
    from headstart.report.html_pages import quality_page

    page = quality_page(report)
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"The page cannot be written to {html}: {error.strerror}. Name another file.") from error


def print_report(report: QualityReport) -> None:
    """Print the findings, most severe first, then the checks that were skipped or passed."""
    out.print(
        f"[bold]{shown(report.cache)}[/]: {counted(report.n_images)}, {report.n_failures:,} unreadable",
        soft_wrap=True,
    )
    if report.findings:
        out.print(findings_table(report.findings))
    else:
        out.print("No problems found.")
    for title, reason in report.skipped.items():
        out.print(f"Not checked: {shown(title)}: {said(reason)}", soft_wrap=True)
    if report.passed:
        out.print(f"[dim]Checked, no problem: {shown('; '.join(report.passed))}[/]", soft_wrap=True)


def findings_table(findings: tuple[Finding, ...]) -> Table:
    """Return one row per finding: title, count, advice and examples."""
    table = Table("", "finding", title="Data quality", show_lines=True)
    table.add_column("cases", justify="right")
    table.add_column("for example", overflow="fold")
    for finding in findings:
        check = finding.check
        words = [f"[bold]{shown(check.title)}[/]", said(check.meaning)]
        words += [f"[dim]Counted: {shown(finding.threshold)}.[/]"] if finding.threshold else []
        words += [shown(f"{printable(kind)} {count:,}") for kind, count in list(finding.breakdown.items())[:5]]
        lines = [shown(describe(example)) for example in finding.examples[:SHOWN_EXAMPLES]]
        lines += ["…"] if finding.count > SHOWN_EXAMPLES else []
        table.add_row(
            f"[{STYLES[check.severity]}]{check.severity}[/]",
            "\n".join(words),
            f"{finding.count:,}\n{check.unit}",
            "\n".join(lines),
        )
    return table


def describe(example: Example) -> str:
    """Return one line about an example."""
    paths = [printable(image.path) for image in example.images[:SHOWN_IMAGES]]
    if example.values.get("n_images", len(paths)) > len(paths):
        paths.append("…")
    return ": ".join(part for part in (", ".join(paths), printable(example.detail)) if part)
