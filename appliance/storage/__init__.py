"""Floor 1: what is on the card. The journal (log, term, vote) and the store (state as of a checkpoint).

Invariant: what a commit wrote is read back as it was written, or refused; nothing is guessed.
The only package that knows LMDB. Everything above uses the Protocols of journal.py and store.py.
"""
