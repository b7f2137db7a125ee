"""Which movies belong to each user: compressed rows of positions among candidates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Which movies belong to each user: the row of user `i` is `positions[starts[i]:starts[i + 1]]`, ascending."""

    starts: NDArray[np.int64]
    """Shape (U + 1,)."""
    positions: NDArray[np.int32]
    """Positions among M candidates, shape (entries,)."""

    @classmethod
    def of(cls, users: NDArray[np.integer], positions: NDArray[np.integer], size: int) -> "Rows":
        """Rows of `size` users from pairs (entries,) in any order."""
        width = int(positions.max(initial=0)) + 1
        starts = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=size))]).astype(np.int64)
        cells = users.astype(np.int64) * width  # in place from here on: there may be many
        cells += positions
        cells.sort()
        cells %= width
        return cls(starts, cells.astype(np.int32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Movies of each user, shape (U,)."""
        return np.diff(self.starts)

    def cells(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The entries of these users' rows (u,) as (place in `users`, position); a user of -1 has none."""
        first = self.starts[users]
        length = np.where(users < 0, 0, self.starts[users + 1] - first)
        place = np.repeat(np.arange(len(users)), length)
        within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return place, self.positions[np.repeat(first, length) + within]

    def dense(self, users: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        """1 where a movie belongs to the user, shape (u, width); positions from `width` on are left out."""
        place, position = self.cells(users)
        inside = position < width
        block = np.zeros((len(users), width), np.float32)
        block[place[inside], position[inside]] = 1
        return block
