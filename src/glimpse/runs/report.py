"""One table and one page over all runs below a folder, from their summary.json.

Runs that differ in their seed alone are one row: mean and standard deviation, and how many.
Imports neither torch nor lightning.
"""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import OmegaConf

from glimpse.errors import UserError


@dataclass(frozen=True)
class Run:
    """A run folder and what its summary and recorded overrides say."""

    folder: Path
    summary: dict[str, Any]
    overrides: tuple[str, ...]

    @property
    def group(self) -> tuple[str, ...]:
        """Equal for runs that differ in nothing but the seed."""
        return (self.summary["data"], self.summary["model"], self.summary["status"], *self.settings)

    @property
    def settings(self) -> tuple[str, ...]:
        """What was set beside data, model, seed and folders, in one order."""
        named = ("data=", "model=", "seed=", "name=", "data_dir=", "output_dir=")
        return tuple(sorted(o for o in self.overrides if not o.startswith(named)))


def find_runs(root: Path) -> list[Run]:
    """Every run below `root`, by folder.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder")
    runs = []
    for path in sorted(root.rglob("summary.json")):
        recorded = path.parent / ".hydra" / "overrides.yaml"
        listed = OmegaConf.load(recorded) if recorded.exists() else OmegaConf.create([])
        overrides = tuple(map(str, OmegaConf.to_container(listed, resolve=False) or ()))
        try:
            runs.append(Run(path.parent, json.loads(path.read_text()), overrides))
        except (json.JSONDecodeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    if not runs:
        raise UserError(f"{root}: no runs in it; `python train.py` makes one")
    return runs


COLUMNS = (
    "data", "model", "what was set", "runs", "train/acc", "val/acc", "test/acc", "majority",
    "epochs", "parameters", "img/s", "seconds", "status",
)  # fmt: skip


def rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A row for each group of runs, best validation accuracy first within a dataset."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    ordered = sorted(groups.values(), key=lambda g: (g[0].summary["data"], -_accuracy(g)))
    return [_row(group) for group in ordered]


def _accuracy(group: Sequence[Run]) -> float:
    return mean(float(run.summary["metrics"].get("val/acc", 0.0)) for run in group)


def _row(group: Sequence[Run]) -> tuple[str, ...]:
    first = group[0].summary
    settings = " ".join(group[0].settings)

    def metric(name: str) -> str:
        values = [r.summary["metrics"][name] for r in group if name in r.summary["metrics"]]
        if not values:
            return ""
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        return f"{mean(values):.4f}{spread}"

    def average(name: str) -> str:
        values = [r.summary[name] for r in group if r.summary[name] is not None]
        return f"{mean(values):,.0f}" if values else ""

    majority = first["majority_acc"]
    return (
        first["data"],
        first["model"],
        settings,
        str(len(group)),
        metric("train/acc"),
        metric("val/acc"),
        metric("test/acc"),
        f"{majority:.4f}" if majority is not None else "",
        average("epochs"),
        average("parameters"),
        average("images_per_second"),
        average("seconds"),
        first["status"],
    )


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem; text-align: left }
th { border-bottom: 2px solid #888 } tr + tr td { border-top: 1px solid #ddd }
td { font-variant-numeric: tabular-nums } .runs { display: grid; gap: 1.5rem;
grid-template-columns: repeat(auto-fill, minmax(34rem, 1fr)) } figure { margin: 0 }
img { max-width: 100% } figcaption { overflow-wrap: anywhere } @media (prefers-color-scheme: dark) {
body { background: #181818; color: #ddd } tr + tr td { border-color: #333 } }
"""


def page(runs: Sequence[Run], root: Path) -> str:
    """A self-contained HTML page: the table, then every run's curves."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(runs)
    )
    figures = "".join(_figure(run, root) for run in runs)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>glimpse runs</title>"
        f"<style>{STYLE}</style><h1>{len(runs)} runs in {html.escape(root.name)}</h1>"
        "<p>The best checkpoint is chosen by val/acc. train/acc is measured in evaluation mode with "
        "its weights. majority is what always answering with the most frequent class scores.</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<h2>Curves</h2><div class=runs>{figures}</div></html>\n"
    )


def _figure(run: Run, root: Path) -> str:
    picture = run.folder / "figures" / "curves.png"
    name = html.escape(str(run.folder.relative_to(root)))
    error = html.escape(str(run.summary.get("error", "")))
    if not picture.exists():
        return f"<figure><figcaption>{name}: {run.summary['status']} {error}</figcaption></figure>"
    data = base64.b64encode(picture.read_bytes()).decode()
    image = f"<img alt='loss and accuracy by epoch' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
