"""The rows of a task app, by split; loaded when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pytest_synth.errors import ConfigError
from pytest_synth.localapi.calls import is_async
from pytest_synth.localapi.failures import failure

Row = TypeVar("Row")

DEFAULT_SPLIT = "test"


class Rows(Generic[Row]):
    """Rows by split.

    Args:
        source: A mapping of split to sequence, a function of the split's name (called once for each
            split), or a sequence, which is the split "test".
        splits: Names of the splits when `source` is a function.
        default_split: The split of a request that names none, if there are several.

    Raises:
        ConfigError: If the arguments do not fit together; it names the one that is wrong.
    """

    def __init__(
        self,
        source: Mapping[str, Sequence[Row]] | Callable[[str], Iterable[Row]] | Sequence[Row],
        *,
        splits: Sequence[str] | None = None,
        default_split: str | None = None,
    ) -> None:
        self._loaded: dict[str, Sequence[Row]] = {}
        self._load: Callable[[str], Iterable[Row]] | None = None
        self._lock = threading.Lock()
        if callable(source):
            if is_async(source):
                raise ConfigError("rows is an async function; give a plain one, it may block")
            self._load = source
            self._names = tuple(splits or ((default_split,) if default_split else ()))
        elif splits is not None:
            raise ConfigError("splits is for rows that are a function; here rows has the names itself")
        elif isinstance(source, Mapping):
            self._loaded = {name: _sequence(rows, f"rows[{name!r}]") for name, rows in source.items()}
            self._names = tuple(source)
        else:
            self._loaded = {DEFAULT_SPLIT: _sequence(source, "rows")}
            self._names = (DEFAULT_SPLIT,)
        if self._load is None and not self._names:
            raise ConfigError("rows has no split; give at least one, for example {'test': [...]}")
        if default_split is not None and self._names and default_split not in self._names:
            raise ConfigError(f"default_split is {default_split!r}; rows has {_names(self._names)}")
        self.default_split = default_split or (self._names[0] if len(self._names) == 1 else None)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, as far as they are known (a function may know more)."""
        return self._names or tuple(self._loaded)

    def split_of(self, env_config: Mapping[str, Any]) -> str:
        """Say which split a request means.

        Raises:
            HTTPException: 422 if it names none and there is no default, or one that does not exist.
        """
        split = env_config.get("split")
        if split is None:
            if self.default_split is None:
                several = f"there are several: {_names(self.splits)}"
                known = several if self._names else "rows is a function that could take any"
                raise failure(
                    422,
                    "split_missing",
                    f"env.config names no split, and {known}; name one, or give task_app a default_split",
                )
            return self.default_split
        if not isinstance(split, str) or (self._names and split not in self._names):
            raise failure(
                422,
                "unknown_split",
                f"env.config['split'] is {split!r}; the splits are {_names(self.splits)}",
            )
        return split

    def of_split(self, split: str) -> Sequence[Row]:
        """All rows of a split; loads them if need be, once, so call it where it may block.

        Raises:
            ConfigError: If the user's function gives no rows.
        """
        loaded = self._loaded.get(split)
        if loaded is not None:
            return loaded
        with self._lock:
            if split not in self._loaded:
                assert self._load is not None
                self._loaded[split] = _sequence(self._load(split), f"rows({split!r})")
            return self._loaded[split]

    def is_loaded(self, split: str) -> bool:
        return split in self._loaded


def pick(rows: Sequence[Row], seed: int | None, split: str) -> Row:
    """The row of a seed.

    Raises:
        HTTPException: 422 if there is none.
    """
    if seed is None:
        raise failure(422, "seed_missing", "env.seed is missing; it is the number of a row")
    if not 0 <= seed < len(rows):
        held = f"rows 0 to {len(rows) - 1}" if rows else "no rows"
        raise failure(422, "seed_out_of_range", f"seed {seed} is outside split {split!r}, which has {held}")
    return rows[seed]


def _sequence(value: object, name: str) -> Sequence[Any]:
    if hasattr(value, "iloc") and hasattr(value, "to_dict"):
        raise ConfigError(f"{name} is a {type(value).__name__}; give its rows: .to_dict('records')")
    if isinstance(value, Mapping | str | bytes):
        raise ConfigError(f"{name} is {type(value).__name__}, not a sequence of rows")
    if hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        return value  # type: ignore[return-value]  # lists, tuples, and data sets that only look like them
    if isinstance(value, Iterable):
        return list(value)
    raise ConfigError(f"{name} is {type(value).__name__}, not a sequence of rows")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
