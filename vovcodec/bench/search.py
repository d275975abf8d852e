"""Coordinate descent over settings: one setting at a time, up or down, until nothing helps, then in smaller steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Coordinate", "descend"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Coordinate:
    """One setting and how it moves.

    step: what is added, or for `is_factor` what `value − origin` is multiplied by. low, high: bounds, both included.
    choices: the values of a setting that is no number. digits: significant digits that are kept.
    """

    name: str
    step: float = 0.0
    low: float = 0.0
    high: float = 0.0
    is_factor: bool = False
    origin: float = 0.0
    choices: tuple[str, ...] = ()
    digits: int = 3

    def moved(self, value: Any, direction: int, share: float) -> Any | None:
        """The next value up (+1) or down (−1) at `share` of the full step; None where there is none."""
        if self.choices:
            at = self.choices.index(value) + direction
            return self.choices[at] if 0 <= at < len(self.choices) else None
        if self.is_factor:
            raw = self.origin + (value - self.origin) * self.step ** (direction * share)
        else:
            raw = value + direction * share * self.step
        rounded = float(f"{min(self.high, max(self.low, raw)):.{self.digits}g}")
        moved = round(rounded) if isinstance(value, int) else rounded
        return None if moved == value else moved


def descend(
    start: Settings,
    coordinates: Sequence[Coordinate],
    score: Callable[[Settings], float | None],
    *,
    margin: float,
    n_halvings: int = 1,
) -> Iterator[tuple[Settings, float]]:
    """Yields the start and every improvement of more than `margin`, each with its score.

    score: higher is better; None = these settings are not allowed. It is asked for the same settings again, so it
    should remember. n_halvings: how often steps are halved when a whole round brought nothing.
    """
    best, best_score = dict(start), score(start)
    if best_score is None:
        raise ValueError("the settings to start from are not allowed")
    yield best, best_score
    for halving in range(n_halvings + 1):
        improved = True
        while improved:
            improved = False
            for each in coordinates:
                for direction in (1, -1):
                    moved = False
                    while (value := each.moved(best[each.name], direction, 0.5**halving)) is not None:
                        candidate = best | {each.name: value}
                        found = score(candidate)
                        if found is None or found <= best_score + margin:
                            break
                        best, best_score, moved, improved = candidate, found, True, True
                        yield best, best_score
                    if moved:
                        break  # coming from there, the other direction is known to be worse
