"""The package as people install it: a wheel with its configuration, `glimpse train`, a new project."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import CONF, REPOSITORY
from glimpse.cli.main import app


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as `pip install --target` leaves it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    source = folder / "source"  # a build leaves files in its source
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(source)], check=True)
    changed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "--modified", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in changed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(*words: str, site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with the installed package."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HYDRA_FULL_ERROR")
    }
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
        env=environment | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_wheel_carries_conf_and_trains_anywhere(installed: Path, tmp_path: Path) -> None:
    carried = {
        path.relative_to(installed / "glimpse" / "conf")
        for path in installed.rglob("conf/**/*.yaml")
        if "template" not in path.parts
    }
    assert carried == {path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    words = ("-m", "glimpse", "train", "model=linear", "trainer=cpu", "trainer.max_epochs=1")
    done = run(*words, "data.val_fraction=0.3", site=installed, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("outputs/digits-linear/*")
    assert json.loads((folder / "environment.json").read_text())["command"][:2] == [
        "glimpse",
        "train",
    ]
    assert (
        run("-m", "glimpse", "evaluate", str(folder), site=installed, folder=tmp_path).returncode
        == 0
    )


@pytest.mark.slow
def test_a_new_project_passes_its_own_tests(installed: Path, tmp_path: Path) -> None:
    done = run("-m", "glimpse", "init", "my-lab", site=installed, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "my-lab"
    assert (project / "my_lab" / "net.py").is_file()
    assert not [
        path for path in project.rglob("*") if path.is_file() and "my_project" in path.read_text()
    ]
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    make = ["make", "test", f"PYTHON={sys.executable}"]
    tested = subprocess.run(
        make, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated"], cwd=project, check=True)
    train = ("train.py", "trainer=cpu", "trainer.max_epochs=1", "data.num_images=60", "test=false")
    assert run(*train, site=installed, folder=project).returncode == 0
    [folder] = project.glob("outputs/stripes-small_net/*")
    resumed = run(
        "train.py", f"resume={folder}", "trainer.max_epochs=2", site=installed, folder=project
    )
    assert resumed.returncode == 0, resumed.stderr
    refused = run("-m", "glimpse", "evaluate", str(folder), site=installed, folder=project)
    assert "type --trust my_lab" in refused.stderr
    words = ("-m", "glimpse", "evaluate", str(folder), "--trust", "my_lab")
    assert run(*words, site=installed, folder=project).returncode == 0


def test_a_project_is_written_into_a_new_folder_alone(tmp_path: Path) -> None:
    def init(name: str) -> str:
        result = CliRunner().invoke(app, ["init", str(tmp_path / name)])
        return result.output if result.exit_code == 0 else result.stderr

    assert "make test" in init("birds")
    assert (tmp_path / "birds" / "conf" / "data" / "stripes.yaml").is_file()
    assert "is not empty" in init("birds")
    (tmp_path / "afile").touch()
    for name in ("afile", "afile/x"):
        assert f"{tmp_path / 'afile'} is a file, expected a folder: type the name" in init(name)
    for name, other in {
        "2birds": "my_2birds",
        "my birds": "my_birds",
        "my.birds": "my_birds",
        "class": "my_class",
        "torch": "my_torch",
        "json": "my_json",
        "data": "my_data",
        "train": "my_train",
    }.items():
        said = init(name)
        assert re.search(rf"type glimpse init \S*/{other}'?$", said.strip()), said
        assert not (tmp_path / name).exists()


def test_glimpse_train_shows_hydras_help_and_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = (
        "import sys; sys.argv[0] = 'glimpse'; from glimpse.cli.entry import main; sys.exit(main())"
    )
    for words, expected in (
        (["--help"], "GROUPS"),
        (["--cfg", "job"], "convnet"),
        (["-m", "optimizer.lrr=1"], "did you mean optimizer.lr?"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "train", *words],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert expected in done.stdout + done.stderr
        assert "torch was imported" not in done.stdout + done.stderr
