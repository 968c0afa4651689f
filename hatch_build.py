"""What a build adds to the package: the revision of its source, and the experiments."""

import pathlib
import runpy
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Additions(BuildHookInterface):
  """Files of the wheel and the source archive that are not in `dcnn/` of the checkout."""

  def initialize(self, version: str, build_data: dict[str, Any]) -> None:
    """Adds them; an editable installation has the checkout itself."""
    if version == "editable":
      return
    root = pathlib.Path(self.root)
    if self.target_name == "wheel":
      for path in (root / "experiments").glob("*.py"):
        build_data["force_include"][str(path)] = f"dcnn/experiments/{path.name}"
    source = runpy.run_path(str(root / "dcnn" / "base" / "version.py"))
    revision = source["revision"]()
    if (root / ".git").exists() and revision:  # else it is in the source archive already
      self._folder = tempfile.TemporaryDirectory()
      file = pathlib.Path(self._folder.name) / source["FILE"]
      file.write_text(f"{revision}\n")
      build_data["force_include"][str(file)] = f"dcnn/base/{source['FILE']}"

  def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
    """Removes what was only needed while building."""
    folder = getattr(self, "_folder", None)
    if folder is not None:
      folder.cleanup()
