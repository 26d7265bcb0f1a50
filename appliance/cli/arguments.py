"""Negative numbers as arguments: click takes each word with a leading dash for options, and -1h for -1 and -h.

Invariant: the words are told apart here, then given to click with all values behind `--`.
"""

from __future__ import annotations

import re
from typing import Final

import click

_NUMBER: Final = re.compile(r"-(\d|\.\d|inf|nan)", re.ASCII | re.IGNORECASE)
"""How a word begins that is meant as a number: no option does."""


class ValueCommand(click.Command):
    """A command whose arguments may be negative numbers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._values_last(ctx, args))

    def _values_last(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count
            for name in parameter.opts
        }
        options: list[str] = []
        values: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--":
                values.extend(words)
            elif word == "-" or not word.startswith("-") or _NUMBER.match(word):
                values.append(word)
            else:
                options.append(word)
                if word in takes_value:
                    value = next(words, None)
                    if value is None:
                        # click says that it is missing; a `--` behind the option would be its value.
                        return options
                    options.append(value)
        return [*options, "--", *values] if values else options
