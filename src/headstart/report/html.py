"""One page of HTML that needs nothing else: no script, no network, pictures inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headstart.texts import printable

if TYPE_CHECKING:
    from headstart.report.findings import QualityReport

#: Cases shown of each finding, and images of each case.
PAGE_EXAMPLES, PAGE_MEMBERS = 24, 6


def quality_page(report: QualityReport) -> str:
    """Return a report on the quality of a data set as one page of HTML.

    Names of files and classes are shown as text whatever they contain. A policy in the page forbids scripts and every
    address but the pictures inside.
    """
    return render_page(
        "quality", report=report, picture=pictures(report.thumbnails), examples=PAGE_EXAMPLES, members=PAGE_MEMBERS
    )


def render_page(name: str, **values: Any) -> str:
    """Return the template of a name filled in, with its style sheet and a policy that lets nothing else in."""
    environment = make_environment()
    style = environment.get_template(f"{name}.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page: str = environment.get_template(f"{name}.html").render(style=style, policy=policy, **values)
    return page


def make_environment() -> Any:
    """Return Jinja2's environment with the templates beside this file; everything is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["breakable"] = breakable
    environment.filters["thousands"] = "{:,}".format
    return environment


def breakable(path: str) -> Any:
    """Return a path as HTML in which a line may end after a slash or an underscore; whatever it contains is text."""
    from markupsafe import Markup, escape

    html = escape(printable(path))
    return html.replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))


def pictures(thumbnails: Mapping[str, bytes]) -> Callable[[str], str]:
    """Return what gives the address of an image's thumbnail; empty where it has none."""

    def picture(path: str) -> str:
        jpeg = thumbnails.get(path)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""

    return picture
