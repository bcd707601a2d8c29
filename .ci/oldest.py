"""Print the oldest version of every package that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
oldest = {match[1]: match[2] for one in wanted if (match := re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", one))}
print("\n".join(f"{name}=={version}" for name, version in sorted(oldest.items())))
