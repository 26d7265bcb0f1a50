"""replace.py SITE: puts a library of a page in the place of the OpenBLAS that numpy's wheel brings along.

OpenBLAS and the Fortran library below it are 28 MB, a quarter of what each start copied into memory, and nothing here
does linear algebra (tests/packaging/test_numpy.py). numpy cannot be loaded without the names, and multiplies two
vectors when it is imported, to see whether the library is sound: that works. Whoever calls anything else ends by an
illegal instruction, and faulthandler shows where. Run by script/build, in the root where the executable is frozen.
"""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

THERE = "scipy_cblas_sdot64_"


def main(site: Path) -> None:
    [library] = site.glob("numpy.libs/libscipy_openblas64_-*.so")
    names = {
        name for user in site.glob("numpy/**/*.so") for name in undefined(user) if name.startswith("scipy_")
    }
    assert THERE in names, f"numpy asks for other names now: {sorted(names)}"
    with tempfile.TemporaryDirectory() as folder:
        code = f"{folder}/blas.o"
        source = Path(__file__).with_name(f"{platform.machine()}.s")
        subprocess.run(["as", "-o", code, source], check=True)
        subprocess.run(
            ["ld", "-shared", "-z", "noexecstack", "--build-id=none", "-soname", library.name, "-o", library, code,
             *(f"--defsym={name}=absent" for name in sorted(names - {THERE}))],
            check=True,
        )  # fmt: skip
    for fortran in ("libgfortran-*", "libquadmath-*"):
        for below in site.glob(f"numpy.libs/{fortran}"):
            below.unlink()


def undefined(user: Path) -> list[str]:
    """What a library wants of others."""
    found = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", user], check=True, capture_output=True, text=True
    )
    return [line.split()[-1] for line in found.stdout.splitlines()]


main(Path(sys.argv[1]))
