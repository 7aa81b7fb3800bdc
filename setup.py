"""Compile the hot path. Everything else about the package is in pyproject.toml.

Environment variables for developers:
    PIXELFAST_SANITIZE=1   compile with AddressSanitizer and UndefinedBehaviorSanitizer
                           (`make sanitize`)
    PIXELFAST_TRACE=1      compile with line tracing, for coverage (`make coverage`) and profilers
    PIXELFAST_ANNOTATE=1   write an HTML page per module to build/cython that shows calls of Python
    PIXELFAST_WERROR=1     treat warnings of the C compiler as errors, as CI does
    PIXELFAST_COMPILE=0    compile nothing: the Makefile installs the package and compiles in place
"""

import os
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switched_on(name: str) -> bool:
    return os.environ.get(f"PIXELFAST_{name}") == "1"


if sys.platform != "linux":
    raise SystemExit("pixelfast runs on Linux: it uses eventfd, fdatasync and SO_REUSEPORT")

Options.warning_errors = True
directives = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    # No module changes a global variable after its import. All state belongs to objects, and each
    # object to one event loop. The commit thread shares only a struct, which an eventfd hands over.
    "freethreading_compatible": True,
    "embedsignature": True,
    "auto_pickle": False,  # no compiled class is ever pickled
    "autotestdict": False,
    "linetrace": switched_on("TRACE"),
}
# Modules outside of the hot path, and those in which the optimizer finds nothing, compile in half
# the time. -O3 vectorizes the scans that the others inline.
LEVELS = {
    "-O1": {
        "pixelfast.collect.clock",
        "pixelfast.collect.reader",
        "pixelfast.config.prefixes",
        "pixelfast.spool.committer",
    },
    "-O2": {
        "pixelfast.collect.budgets",
        "pixelfast.collect.sources",
        "pixelfast.spool.batch",
        "pixelfast.spool.frames",
        "pixelfast.spool.writer",
    },
}
compile_flags = ["-g1", "-fno-plt"]
link_flags = []
if switched_on("WERROR"):
    compile_flags += ["-Wall", "-Werror"]
if switched_on("TRACE"):
    compile_flags += ["-DCYTHON_TRACE_NOGIL=1"]
if switched_on("SANITIZE"):
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_flags += [*sanitizers, "-O1", "-g", "-fno-omit-frame-pointer"]
    link_flags += sanitizers


def level_of(module: str) -> str:
    return next((level for level, names in LEVELS.items() if module in names), "-O3")


modules = [
    Extension(
        name := ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=[level_of(name), *compile_flags],  # -O1 of the sanitizers comes later
        extra_link_args=link_flags,
    )
    for path in sorted(Path("pixelfast").rglob("*.pyx"))
    if os.environ.get("PIXELFAST_COMPILE") != "0"
]
cores = len(os.sched_getaffinity(0))


def leave_out_structs(c_file: Path) -> None:
    """Do not show tracers the structs that functions return.

    Cython would convert them to dicts, and crash where one has a char pointer that is NULL.
    """
    call = re.compile(r"__Pyx_TraceReturnCValue\(\w+, __pyx_convert__to_py_struct\w+, ")
    text = c_file.read_text(encoding="utf-8")
    if call.search(text):
        c_file.write_text(call.sub("__Pyx_TraceReturnValue(Py_None, ", text), encoding="utf-8")


class BuildExtensions(build_ext):
    """Translates to C only when something is compiled, not for the metadata or the sdist."""

    def run(self):
        translated = cythonize(
            self.extensions,
            nthreads=cores,
            quiet=True,
            build_dir="build/cython",  # no C beside the sources, none in the wheel
            compiler_directives=directives,
            annotate=switched_on("ANNOTATE"),
        )
        if switched_on("TRACE"):
            for each in translated:
                leave_out_structs(Path(each.sources[0]))
        made = {each.name: each for each in translated}
        for extension in self.extensions:
            extension.sources = made[extension.name].sources
            extension.depends = made[extension.name].depends
        super().run()


def readme() -> str:
    """README for PyPI, where only absolute links lead to the files of the repository."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->\n", "", text)
    raw, page = "https://raw.githubusercontent.com/%s/main/", "https://github.com/%s/blob/main/"
    link = r"(!?)(\[[^\]]*\])\((?!https?:)"
    places = {"!": raw % "pixelfast/pixelfast", "": page % "pixelfast/pixelfast"}
    return re.sub(link, lambda match: f"{match[1]}{match[2]}({places[match[1]]}", text)


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    options={"build_ext": {"parallel": cores}},
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=modules,
)
