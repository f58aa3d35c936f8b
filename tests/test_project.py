"""What the project says of itself holds: environments agree; what its pages name and link to exists."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from conftest import REPOSITORY, choices

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
README = (REPOSITORY / "README.md").read_text()
GROUPS_IN_README = (
    "data",
    "model",
    "optimizer",
    "scheduler",
    "loss",
    "augment",
    "callbacks",
    "trainer",
)
TOP_PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = TOP_PAGES[:2] + sorted((REPOSITORY / "docs").glob("*.md"))
EXTRAS = PROJECT["optional-dependencies"]
OF_OTHER_EXTRAS, *OF_DEV = map(Requirement, EXTRAS["dev"])
REQUIREMENTS = [
    *map(Requirement, PROJECT["dependencies"]),
    *(Requirement(text) for extra in sorted(OF_OTHER_EXTRAS.extras) for text in EXTRAS[extra]),
    *OF_DEV,
]


def test_developers_have_every_extra_but_ray() -> None:
    assert OF_OTHER_EXTRAS.name == PROJECT["name"]
    assert OF_OTHER_EXTRAS.extras == set(EXTRAS) - {"dev", "ray"}


def test_conda_environment_is_that_of_pyproject() -> None:
    environment = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "environment.yml"))
    assert isinstance(environment, dict)
    python, _, with_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert with_pip["pip"] == ["-c constraints.txt", "-e .[dev]"]  # as the Makefile does


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert set(pins) == {requirement.name for requirement in REQUIREMENTS}
    for requirement in REQUIREMENTS:
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_of_lightning_are_not_admitted(version: str) -> None:
    [lightning] = [r for r in REQUIREMENTS if r.name == "lightning"]
    assert not lightning.specifier.contains(version)


def test_the_entry_point_is_short_and_light() -> None:
    source = (REPOSITORY / "train.py").read_text()
    assert len(source.splitlines()) < 40
    assert not re.search(r"import (torch|lightning)", source)


def test_make_alone_lists_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    assert set(phony.split()) == set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    listed = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+) +\S", listed.stdout, re.M) == phony.split()


def test_continuous_integration_runs_every_test_once() -> None:
    called = re.findall(r"^make ([a-z-]+)$", (REPOSITORY / ".ci" / "run").read_text(), re.M)
    commands = [
        subprocess.run(
            ["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True
        ).stdout
        for target in called
    ]
    markers = [
        found for text in commands for found in re.findall(r"-m pytest .*-m (.+)$", text, re.M)
    ]
    assert markers == ["'not slow'", "slow"]


def test_hooks_and_checks_use_the_tools_of_the_environment() -> None:
    hooks = OmegaConf.to_container(OmegaConf.load(REPOSITORY / ".pre-commit-config.yaml"))
    assert isinstance(hooks, dict)
    for repository in hooks["repos"]:
        assert repository["repo"] == "local"  # another source would bring versions of its own
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            assert hook["entry"].startswith(".venv/bin/")


OF_A_USER = (
    "shapes",
    "rotate_and_blur",
    "mine",
)  # what the pages call a choice that a user adds


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page: Path) -> None:
    text = page.read_text()
    for group, choice in re.findall(
        r"\b(data|model|optimizer|scheduler|loss|augment|trainer|experiment)=(?:choice\()?([a-z]\w+)",
        text,
    ):
        assert choice in [*choices(group), *OF_A_USER], f"{group}={choice}"
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text()
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (REPOSITORY / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", TOP_PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page: Path) -> None:
    """`make docs` checks the links between the pages of docs/."""
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page.read_text()):
        path, _, section = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if section:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            assert section in {slugify(heading, "-") for heading in headings}, link


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """`make docs`, into another folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pages = list(tmp_path.glob("*.html"))
    assert pages
    for page in pages:
        assert not re.search(
            r"<(script|link|img|iframe)[^>]*(src|href)=.?https?:", page.read_text()
        )


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("group", sorted(GROUPS_IN_README))
def test_the_readme_lists_every_choice(group: str) -> None:
    [row] = [line for line in README.splitlines() if line.startswith(f"| [`{group}`]")]
    assert set(choices(group)) <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize(
    "picture", sorted((REPOSITORY / "docs" / "images").iterdir()), ids=lambda path: path.name
)
def test_pictures_are_light_and_shown(picture: Path) -> None:
    assert picture.stat().st_size < 200_000
    assert any(f"images/{picture.name})" in page.read_text() for page in PAGES)


@pytest.mark.parametrize(
    ("group", "page"),
    [
        ("data", "data"),
        ("model", "models"),
        ("optimizer", "training"),
        ("scheduler", "training"),
        ("loss", "training"),
        ("metrics", "metrics"),
        ("trainer", "training"),
        ("callbacks", "training"),
        ("logger", "training"),
        ("augment", "augmentation"),
        ("experiment", "results"),
    ],
)
def test_every_choice_is_documented(group: str, page: str) -> None:
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    for choice in choices(group):
        assert re.search(rf"\b{choice}\b", text), f"{group}={choice}"
