"""Runs before any import of the frozen program: settings that libraries read once, when they are loaded."""

import os

# numpy's linear algebra starts a thread with a buffer of its own for each core. Nothing here uses it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
