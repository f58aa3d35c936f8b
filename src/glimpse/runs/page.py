"""Self-contained HTML pages: one for all runs, and one for a single run.

To keep the page small even with a thousand runs, it draws curves only for the NUM_CURVES best
groups, with running groups first. The best run of a group represents it. The NUM_PICTURED best of
these groups also show pictures of at most MAX_PICTURE_BYTES each. The page of a single run shows
all its pictures of at most MOST_PICTURE_BYTES. A script sorts the table when a column's button is
pressed; the page is readable without it.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from glimpse.plots.svg import STYLE as CURVE_STYLE
from glimpse.plots.svg import curves
from glimpse.records import FAILED, FINISHED
from glimpse.runs import report
from glimpse.runs.description import describe
from glimpse.runs.folder import RUNNING, UNREADABLE, Run, epochs_of, pictures_of
from glimpse.runs.groups import Group
from glimpse.runs.section import Section
from glimpse.text import as_utf8

NUM_CURVES = 40
NUM_PICTURED = 5
MAX_PICTURE_BYTES = 500_000
MOST_PICTURE_BYTES = 20_000_000  # on the page of a single run
SHOWN_STATUS = (FAILED, RUNNING, UNREADABLE)  # highlighted by colour or weight

STYLE = """
:root { color-scheme: light dark; --faint: #ddd; --soft: #f4f4f4 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem;
background: #fff; color: #1a1a1a } .wide { overflow-x: auto } table { border-collapse: collapse }
td, th { padding: .3rem .7rem; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888; white-space: nowrap } tr + tr td { border-top: 1px solid var(--faint) }
td:first-child { white-space: nowrap } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere } .number { text-align: right;
white-space: nowrap }
.sorts { font-size: .83rem } .sorts td, .sorts th { padding: .3rem .35rem } .sorts td {
white-space: nowrap } .sorts .long { white-space: normal; overflow-wrap: break-word;
min-width: 13rem } .sorts button { font: inherit; color: inherit; background: none; border: 0;
padding: 0; cursor: pointer } [aria-sort=ascending] button::after { content: " ▲" }
[aria-sort=descending] button::after { content: " ▼" } .failed, .unreadable { color: #b3261e } .running { font-weight: bold }
details { margin: .5rem 0; border-top: 1px solid var(--faint); padding-top: .5rem }
summary { cursor: pointer } .charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: .5rem 0 }
figure { margin: 0; max-width: 100% } figure img { max-width: 100%; height: auto }
figcaption, .note { opacity: .75 } .note { max-width: 60rem } pre { background: var(--soft);
padding: .7rem 1rem; overflow-x: auto } @media (prefers-color-scheme: dark) {
:root { --faint: #383838; --soft: #242424 } body { background: #181818; color: #ddd }
.failed, .unreadable { color: #ff8a80 } } @page { size: landscape; margin: 1cm }
@media print { body { max-width: none; margin: 0; padding: 0 } .wide { overflow: visible }
.sorts { font-size: .6rem } .sorts td, .sorts th { padding: .15rem .2rem } .sorts .long { min-width: 0 }
pre { white-space: pre-wrap; overflow-wrap: anywhere } }
"""

SORT = """
document.querySelectorAll(".sorts button").forEach((button, i) => button.onclick = () => {
  const th = button.parentNode, rises = th.getAttribute("aria-sort") != "ascending", sign = rises ? -1 : 1;
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", rises ? "ascending" : "descending");
  const body = th.closest("table").tBodies[0];
  const value = row => row.cells[i].textContent, number = text => parseFloat(text.replaceAll(",", ""));
  [...body.rows].sort((a, b) => sign * (number(value(b)) - number(value(a)) ||
    value(b).localeCompare(value(a)))).forEach(row => body.append(row));
});
"""


def over_all(groups: Sequence[Group], root: Path, sections: Sequence[Section] = ()) -> str:
    """The page for all runs: the table, the problems, and curves and pictures of the best ones.

    Args:
        groups: The groups of runs.
        root: The folder that contains them.
        sections: Other sections of the report, which come above the curves.
    """
    columns, rows = report.table(groups)
    notes = "".join(f"<p class=note>{_safe(line)}</p>" for line in report.heading(groups))
    wrong = "".join(
        f"<li><code>{_safe(_below(run, root))}</code> <span class={_status_class(run)}>{_safe(text)}</span>"
        for run, text in report.problems(groups)
    )
    displayed = report.shown(groups)
    runnings = [member for member in displayed if member.status == RUNNING]
    others = [member for member in displayed if member.status != RUNNING]
    best = [*runnings, *sorted(others, key=lambda member: -member.rank)][:NUM_CURVES]
    pictured = sorted(best, key=lambda member: -member.rank)[:NUM_PICTURED]
    details = "".join(
        _details(member, root, has_pictures=member in pictured, is_open=i < NUM_PICTURED)
        for i, member in enumerate(best)
    )
    judged = groups[0].monitor.name
    said = f"Each group is represented by its best run, by {judged}. {_first(len(best), len(displayed))}"
    return _page(
        f"{root.name}: runs",
        f"<h1>Runs in {_safe(root.name)}</h1>{notes}"
        f"<div class=wide>{_table(columns, rows, sorts=True)}</div>"
        + "".join(map(_section, sections))
        + (f"<h2>What went wrong</h2><ul>{wrong}</ul>" if wrong else "")
        + f"<h2>Curves and pictures</h2><p class=note>{said} The train curve is a running average "
        "while the weights change, and the val curve is measured in evaluation mode.</p>"
        f"{details}<script>{SORT}</script>",
    )


def _section(section: Section) -> str:
    told = "".join(f"<p>{_safe(line)}</p>" for line in section.told)
    pictures = "".join(map(_picture, section.pictures))
    return f"<h2>{_safe(section.title)}</h2>{told}<div class=charts>{pictures}</div>"


def of_one(run: Run) -> str:
    """The page of a single run."""
    description = describe(run)
    facts = [[name, value] for name, value in description.facts]
    results = _table(*description.results) if description.results else ""
    recall = f"<h2>Recall by class</h2>{_table(*description.recall)}" if description.recall else ""
    pictures = "".join(map(_picture, _not_curves(run))) or "<p>There are no pictures.</p>"
    commands = _safe("\n".join(description.commands))
    repeat = f"<h2>To repeat it</h2><pre>{commands}</pre>" if commands else ""
    settings = [[name, value] for name, value in run.settings.items()]
    shown = f"<span class={_status_class(run)}>{_safe(run.status)}</span>"
    return _page(
        f"{run.data} {run.model} {run.folder.name}",
        f"<h1>{_safe(run.model)} on {_safe(run.data)}: {shown}</h1><div class=wide>{_table([], facts)}</div>"
        f"<h2>Result</h2>{results}<p>{_safe(description.gap)}</p>"
        f"<p class=note>majority acc is the accuracy of the majority-class baseline.</p>{recall}"
        "<h2>Curves</h2><p class=note>The train curve is a running average while the weights change, "
        f"and the val curve is measured in evaluation mode.</p>{_curves(run)}"
        f"<h2>Pictures</h2><div class=charts>{pictures}</div>"
        f"{repeat}<details><summary>All settings</summary>{_table([], settings)}</details>",
    )


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{_safe(title)}</title>"
        f"<style>{STYLE}{CURVE_STYLE}</style>{body}</html>\n"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, sorts: bool = False) -> str:
    rows = list(rows)
    head = body = ""
    for i, name in enumerate(columns):
        has_numbers = any(_kind(row[i]) == "number" for row in rows)
        text = f"<button type=button>{_safe(name)}</button>" if sorts else _safe(name)
        head += f"<th{' class=number' if has_numbers else ''}>{text}</th>"
    for row in rows:
        kinds = [_kind(cell) if columns else "" for cell in row]
        body += f"<tr>{''.join(map(_cell, row, kinds))}</tr>"
    kind = " class=sorts" if sorts else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, kind: str) -> str:
    return f"<td{f' class={kind}' if kind else ''}>{_safe(text)}</td>"


def _kind(text: str) -> str:
    """The CSS class of a cell."""
    if text[:1].isdigit() or text[:2] in ("+0", "-0") or text == report.SIMPLEST:
        return "number"
    if text in SHOWN_STATUS:
        return text
    return "long" if len(text) > 30 else ""


def _details(member: Group, root: Path, *, has_pictures: bool, is_open: bool) -> str:
    run = member.best
    pictures = ""
    if has_pictures:
        shown = (_picture(path, most=MAX_PICTURE_BYTES) for path in _not_curves(run))
        pictures = f"<div class=charts>{''.join(shown)}</div>"
    name = " ".join(filter(None, (member.data, member.model, member.label)))
    accuracy = f", {run.reported}/acc {run.accuracy:.4f}" if run.accuracy is not None else ""
    status = f" ({member.status})" if member.status != FINISHED else ""
    return (
        f"<details{' open' if is_open else ''}><summary>{_safe(name + accuracy + status)}</summary>"
        f"<code>{_safe(_below(run, root))}</code>{_curves(run)}{pictures}</details>"
    )


def _curves(run: Run) -> str:
    charts = curves(epochs_of(run.folder)) or "<p>No epochs are recorded.</p>"
    return f"<div class=charts>{charts}</div>"


def _not_curves(run: Run) -> list[Path]:
    """The run's pictures without its curves, which the page draws itself."""
    return [path for path in pictures_of(run.folder) if path.name != "curves.png"]


def _picture(path: Path, *, most: int = MOST_PICTURE_BYTES) -> str:
    """A picture inside the page; empty if it is larger than `most` bytes or cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError:
        return ""
    if len(content) > most:
        return ""
    data = base64.b64encode(content).decode()
    name = _safe(path.stem.replace("_", " "))
    return (
        f"<figure><img alt='{name}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{name}</figcaption></figure>"
    )


def _first(num_shown: int, num_groups: int) -> str:
    if num_shown == num_groups:
        return f"The {NUM_PICTURED} best groups also show pictures."
    return (
        f"These are the best {num_shown} of {num_groups:,} groups, with running ones first; the "
        f"{NUM_PICTURED} best also show pictures. For a page of any run, type glimpse report RUN."
    )


def _below(run: Run, root: Path) -> str:
    return str(run.folder.relative_to(root))


def _status_class(run: Run) -> str:
    return run.status if run.status in SHOWN_STATUS else "other"


def _safe(text: str) -> str:
    return html.escape(as_utf8(text))
