"""The notebooks as they are committed: run to the end, small, of no particular machine, up to date."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from conftest import REPOSITORY
from glimpse import notebook

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MAX_BYTES = 400_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|usr|opt|var|mnt)/|\b[A-Z]:\\")
HAND_WRITTEN = "1_cross_correlation"  # its subject is a function

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def tree_of(path: Path) -> ast.Module:
    return ast.parse("\n".join("".join(cell["source"]) for cell in code_cells(path)))


@every_notebook
def test_it_ran_from_top_to_bottom_without_errors_or_warnings(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output["text"]


@every_notebook
def test_it_is_small_and_names_no_place_of_a_machine(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    for cell in code_cells(path):
        texts = ["".join(cell["source"])]
        for output in cell["outputs"]:
            texts.append("".join(output.get("text", "")))
            data = output.get("data", {})
            texts += ["".join(value) for kind, value in data.items() if kind.startswith("text/")]
        for text in texts:
            assert not MACHINE_PATH.search(text), text
            assert " at 0x" not in text, text  # an address: something was printed without a value


@every_notebook
def test_it_defines_nothing(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, ast.ClassDef)
        if path.stem != HAND_WRITTEN:
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@every_notebook
def test_what_it_takes_from_glimpse_exists(path: Path) -> None:
    tree = tree_of(path)
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "glimpse":
            assert node.module
            for alias in node.names:
                try:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    found = getattr(importlib.import_module(node.module), alias.name)
                if isinstance(found, ModuleType):
                    modules[alias.asname or alias.name] = found
    assert modules or "glimpse" in ast.unparse(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


@pytest.fixture
def own_hydra() -> Iterator[None]:
    """A notebook is a process of its own: it composes without what the tests have set up."""
    state = GlobalHydra.get_state()
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.set_state(state)


@pytest.mark.usefixtures("own_hydra")
def test_a_notebook_trains_quietly_and_gets_network_and_curves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLIMPSE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trained = notebook.train(
        "data=digits", "model=linear", "optimizer.lr=0.05", "trainer=cpu", "trainer.max_epochs=3"
    )
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert trained.curves["epoch"] == [1, 2, 3]
    # The network is the one that the last row of the curves measured.
    batches = [
        trained.data.batches.to_network(batch) for batch in trained.data.batches.loader("val")
    ]
    num_right = sum(int((trained.network(b.images).argmax(1) == b.labels).sum()) for b in batches)
    accuracy = num_right / len(trained.data.labels("val"))
    assert accuracy == pytest.approx(trained.curves["val/acc"][-1], abs=1e-6)
    assert accuracy > 0.8


@pytest.mark.usefixtures("own_hydra")
def test_a_dataset_is_here_if_its_files_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLIMPSE_DATA", str(tmp_path))
    assert notebook.is_here("digits")
    assert not notebook.is_here("cifar2")
    assert not notebook.is_here("sign_mnist")
