"""The table [library] of config.toml: how many saved files are kept."""

from typing import Annotated

from shmcam.config.schema import Section, setting


class LibrarySettings(Section, frozen=True):
    """[library]: what is kept; a limit of 0 is none."""

    free_reserve_mb: Annotated[
        int, setting("free space never taken; the oldest files go first", unit="MB", ge=0, le=10_000_000, apply="live")
    ] = 500
    free_reserve_percent: Annotated[
        float,
        setting("the same as a share of the disk; the smaller of both counts", unit="%", ge=0, le=90, apply="live"),
    ] = 5.0
    delete_only_uploaded: Annotated[
        bool,
        setting("limits and the reserve delete only files of which a verified copy was uploaded", apply="live"),
    ] = False
    max_total_mb: Annotated[int, setting("all but archives", unit="MB", ge=0, le=1_000_000_000, apply="live")] = 0

    pictures_max_count: Annotated[
        int, setting("pictures and stacks kept, protected ones included", ge=0, le=100_000_000, apply="live")
    ] = 0
    pictures_max_mb: Annotated[int, setting("their size", unit="MB", ge=0, le=1_000_000_000, apply="live")] = 0
    pictures_max_days: Annotated[float, setting("their age", unit="days", ge=0, le=36_500, apply="live")] = 0.0

    clips_max_count: Annotated[
        int, setting("clips and sessions kept, protected ones included", ge=0, le=100_000_000, apply="live")
    ] = 0
    clips_max_mb: Annotated[int, setting("their size", unit="MB", ge=0, le=1_000_000_000, apply="live")] = 0
    clips_max_days: Annotated[float, setting("their age", unit="days", ge=0, le=36_500, apply="live")] = 0.0

    films_max_count: Annotated[
        int, setting("timelapses and startrails kept, protected ones included", ge=0, le=100_000_000, apply="live")
    ] = 0
    films_max_mb: Annotated[int, setting("their size", unit="MB", ge=0, le=1_000_000_000, apply="live")] = 0
    films_max_days: Annotated[float, setting("their age", unit="days", ge=0, le=36_500, apply="live")] = 0.0

    archives_max_count: Annotated[
        int, setting("archives kept, protected ones included", ge=0, le=1_000_000, apply="live")
    ] = 0
    archives_max_mb: Annotated[int, setting("their size", unit="MB", ge=0, le=1_000_000_000, apply="live")] = 0
    archives_max_days: Annotated[float, setting("their age", unit="days", ge=0, le=36_500, apply="live")] = 0.0


TABLES: dict[str, type[Section]] = {"library": LibrarySettings}
