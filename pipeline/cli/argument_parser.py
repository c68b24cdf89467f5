"""The parser of a command: errors in one line, and the closest name for an unknown one."""

from __future__ import annotations

import argparse
import difflib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.cli.options import Words
from pipeline.cli.terminal import show_error
from pipeline.core.config import SYNTHETIC

_RENAMED = {"--max-size": "--max-input-size"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, []) or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Prints errors in one line, escaped: file names that a shell expanded may be hostile."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning with the next option that begins with it.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        reason = " ".join(message.split())
        show_error(f"{reason}; see {self.prog} --help")
        self.exit(2)

    def parse_mixed(self, words: Sequence[str], command: str) -> argparse.Namespace:
        """Parse options and names in any order; suggest the closest option for an unknown one."""
        found, unknown = self.parse_known_intermixed_args(
            list(self._one_by_one([*self._with_values(words)])),
            argparse.Namespace(command=command),
        )
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            word = unknown[0].partition("=")[0]
            if word in _RENAMED:
                self.error(f"{word} is now {_RENAMED[word]}")
            alike = _alike(word, known) if word.startswith("--") else []
            meant = f"; did you mean {alike[0]}?" if alike else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found

    def _with_values(self, words: Sequence[str]) -> Iterator[str]:
        """An option that may have no value with the one that it then has: a clip may follow."""
        rest = deque(words)
        while rest:
            word = rest.popleft()
            action = self._option_string_actions.get(word)
            if word == "--":
                yield from [word, *rest]
                return
            if action is not None and action.nargs == "?":
                choices = tuple(action.choices or ())
                following = rest[0] if rest else ""
                is_value = following in choices if choices else _is_number(following)
                if choices and rest and not is_value and _is_plain(following):
                    self.error(f"{word} {following!r} is not one of {', '.join(choices)}")
                word = f"{word}={rest.popleft() if is_value else action.const}"
            yield word

    def _one_by_one(self, words: Sequence[str]) -> Iterator[str]:
        """Several values of one option, each with the option: a clip may come behind them."""
        flag, option = "", None
        for before, word in itertools.pairwise(["", *words]):
            is_option = word.startswith("--")  # Also a misspelt one.
            if before != flag and option and option.more.fullmatch(word) and not is_option:
                yield f"{flag}={word}"
                continue
            if before != flag or option is None:
                found = self._option_string_actions.get(word)
                flag, option = word, found if isinstance(found, Words) else None
            yield word


def _alike(word: str, known: Sequence[str]) -> list[str]:
    """The option that was probably meant: one that the word begins with, or one that is close."""
    begun = [option for option in known if word.startswith(option) and len(option) > len("--a")]
    return sorted(begun, key=len)[-1:] or difflib.get_close_matches(word, known, 1, 0.7)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdecimal()


def _is_plain(word: str) -> bool:
    """Whether it can be no option, file, pattern or source."""
    return word.isidentifier() and word != SYNTHETIC and not Path(word).exists()
