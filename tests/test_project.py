"""What the project says of itself holds: environments agree, the README's commands exist."""

import re
import tomllib

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from conftest import REPOSITORY, choices

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
REQUIREMENTS = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def test_conda_environment_is_that_of_pyproject() -> None:
    environment = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "environment.yml"))
    assert isinstance(environment, dict)
    *_, with_pip = environment["dependencies"]
    constraint, *requirements, editable = with_pip["pip"]
    assert requirements == REQUIREMENTS
    assert (constraint, editable) == ("-c constraints.txt", "-e .")
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirements = [Requirement(text) for text in REQUIREMENTS]
    assert set(pins) == {requirement.name for requirement in requirements}
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_of_lightning_are_not_admitted(version: str) -> None:
    [lightning] = [r for r in map(Requirement, REQUIREMENTS) if r.name == "lightning"]
    assert not lightning.specifier.contains(version)


def test_the_entry_point_is_short_and_light() -> None:
    source = (REPOSITORY / "train.py").read_text()
    assert len(source.splitlines()) < 40
    assert not re.search(r"import (torch|lightning)", source)


def test_the_makefile_has_its_targets() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M)
    assert set(targets) == {
        "help",
        "setup",
        "train",
        "test",
        "lint",
        "format",
        "typecheck",
        "bench",
        "notebooks",
        "tensorboard",
        "report",
        "clean",
    }


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_what_there_is(file: str) -> None:
    text = (REPOSITORY / file).read_text()
    for group, choice in re.findall(
        r"\b(data|model|optimizer|augment|experiment)=([a-z]\w+)", text
    ):
        assert choice in choices(group), f"{group}={choice}"
    for target in re.findall(r"`make ([a-z]+)`", text):
        assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text()
    for link in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
        assert (REPOSITORY / link).exists(), link


def test_the_readme_names_every_choice() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for group in ("data", "model", "optimizer", "scheduler", "loss", "augment", "trainer"):
        for choice in choices(group):
            assert re.search(rf"\b{choice}\b", text), f"{group}={choice}"
    for experiment in choices("experiment"):
        assert experiment in text
