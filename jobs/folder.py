"""What lies where in the state folder."""

from pathlib import Path


class StateFolder:
    """The places in a state folder."""

    state_dir: Path

    @property
    def lake(self) -> Path:
        """Ratings, movies and users that `recjob ingest` filled."""
        return self.state_dir / "lake"

    @property
    def cache(self) -> Path:
        """What was fetched of an input in an object store."""
        return self.state_dir / "cache"

    @property
    def models(self) -> Path:
        """The model registry."""
        return self.state_dir / "models"

    @property
    def runs(self) -> Path:
        """Staged partitions by date."""
        return self.state_dir / "runs"

    @property
    def journal(self) -> Path:
        """One record per attempt."""
        return self.state_dir / "journal"

    @property
    def published(self) -> Path:
        """Published files."""
        return self.state_dir / "published"

    @property
    def database(self) -> Path:
        """The link that readers open."""
        return self.state_dir / "recommendations.duckdb"

    @property
    def reports(self) -> Path:
        """Pictures of experiments."""
        return self.state_dir / "reports"

    @property
    def pages(self) -> Path:
        """The HTML reports of nights."""
        return self.reports / "nightly"

    @property
    def guarded(self) -> tuple[Path, ...]:
        """The folders that only the holder of the lock writes to."""
        return self.journal, self.models, self.runs, self.published, self.lake, self.pages

    @property
    def lock(self) -> Path:
        """The lock between runs."""
        return self.state_dir / "lock"
