"""Compiles fedsparse/kernels while a wheel or an editable installation is made.

Where that fails, for want of a compiler or of Python's headers, the wheel is a pure one and its loops run in
NumPy: slower, with the same results.
"""

from __future__ import annotations

from pathlib import Path
from sysconfig import get_config_var
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ROOM = Path("fedsparse", "kernels")
# A fused multiply-add rounds otherwise than two steps do; sums of what strangers send wrap, and are judged later.
_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fwrapv"]


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled loops to what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in place, so that an editable installation finds it, and add it to the wheel."""
        library = Path(self.root) / _ROOM / f"_compiled{get_config_var('EXT_SUFFIX')}"
        try:
            _compile(Path(self.root), library)
        except Exception as error:
            library.unlink(missing_ok=True)  # of another source
            why = f"{type(error).__name__}: {error}"
            self.app.display_warning(f"fedsparse.kernels was not compiled, its loops run in NumPy: {why}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(library)] = str(_ROOM / library.name)


def _compile(root: Path, library: Path) -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    source = str(root / _ROOM / "_compiled.pyx")
    module = Extension("fedsparse.kernels._compiled", [source], extra_compile_args=_FLAGS)
    with TemporaryDirectory() as scratch:
        modules = cythonize([module], build_dir=scratch, quiet=True)
        command = build_ext(Distribution({"name": "fedsparse", "ext_modules": modules}))
        command.build_lib = command.build_temp = scratch
        command.ensure_finalized()
        command.run()
        fresh = library.with_name(f"{library.name}.new")
        fresh.write_bytes(Path(command.get_ext_fullpath("fedsparse.kernels._compiled")).read_bytes())
        fresh.replace(library)  # processes that run keep the one they have
