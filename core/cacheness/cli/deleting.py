"""Commands that delete entries."""

from __future__ import annotations

from cacheness.cli.options import Place, Yes, about_a_cache
from cacheness.cli.screen import confirm, out, progress, telling_what_is_left


@about_a_cache
def evict(*, place: Place) -> None:
    """Delete expired entries, and what exceeds the quota."""
    with place.opened() as cache, telling_what_is_left(cache):
        with progress() as bar:
            task = bar.add_task("evicting", total=None)

            def show(gone: int, to_go: int | None) -> None:
                total = None if to_go is None else gone + to_go
                bar.update(task, completed=gone, total=total, description=f"evicting: {gone:,} entries deleted")

            gone = cache.evict(progress=show)
        out.print(f"{gone:,} entries deleted")


@about_a_cache
def clear(*, place: Place, yes: Yes = False) -> None:
    """Delete every entry of the namespace."""
    with place.opened() as cache:
        entries = cache.stats()["entries"]
        confirm(f"Delete all {entries:,} entries of namespace {cache.config.namespace!r}?", yes=yes)
        with telling_what_is_left(cache):
            out.print(f"{cache.clear():,} entries deleted")
