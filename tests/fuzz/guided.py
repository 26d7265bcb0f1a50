"""Coverage-guided fuzzing of the targets with atheris: `python -m tests.fuzz.guided TARGET SECONDS [FOLDER]`.

atheris is installed by script/fuzz, and is part of nothing else. A find ends the run with its bytes in FOLDER.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["appliance"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, seconds = sys.argv[1], sys.argv[2]
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix=f"raftberry-fuzz-{name}-"))
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    for number, seed in enumerate((*target.seeds, *target.words)):
        (corpus / f"seed-{number}").write_bytes(seed)
    warnings.simplefilter("ignore")

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except target.answers:
            pass

    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={folder}/find-", "-print_final_stats=1",
        "-max_len=40000", "-timeout=20", "-rss_limit_mb=2048", "-verbosity=0", str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
