"""Put conf/ into the wheel, as glimpse/conf. Everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """Copy the configuration files too, unless the package is installed in place (editable)."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("conf", str(Path(self.build_lib) / "glimpse" / "conf"))


setup(cmdclass={"build_py": BuildWithConfiguration})
