"""Hostile bytes for everything that decodes: valid ones changed a little, and nonsense.

A decoder answers with its value or with our error; it never crashes, hangs, or allocates what a few bytes claim.
In CI by hypothesis, derandomized and bounded; longer, and guided by coverage, with script/fuzz.
"""
