"""Raftberry: sensor readings, replicated and on disk on a majority before the acknowledgement leaves."""

__version__ = "0.1.0"
