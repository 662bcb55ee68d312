"""Where a storm blows: the stores, a clone of them, rights that can be taken away, and servers that fail over.

Each world starts with some results that stay for good (`Ledger`), and a seed: a copy of the metadata at
that moment, from which clones are made that still point at the original's blobs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from cacheness import UnifiedCache
from cacheness.config import Config
from cacheness.testing import servers
from tests.metadata import poolers

KEY = "a key that only this storm knows"
DATABASE, SEED, CLONE, ROLE = "storm", "storm_seed", "storm_clone", "storm_user"
PRIVILEGES = ("INSERT", "UPDATE", "DELETE", "SELECT", "INSERT, UPDATE, DELETE")
_OVERRIDES = (0, 1, 2, 3)  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


@dataclass(frozen=True, kw_only=True)
class World:
    """The stores as the processes of a storm find them."""

    config: Config
    folder: Path  #: of this world
    admin: str = ""  #: URL of the database server for its administrator; empty for SQLite
    left_behind: Config | None = None  #: of a primary that a standby has replaced, and that came back

    @property
    def is_server(self) -> bool:
        """Whether a server's clock decides lifetimes."""
        return bool(self.admin)

    def clone(self) -> Config:
        """A fresh clone of the seed, on the original's blobs."""
        if not self.is_server:
            clone = self.folder / "clone"
            shutil.rmtree(clone, ignore_errors=True)
            shutil.copytree(self.folder / "seed", clone)
            return self.config.but(cache_dir=str(clone))
        name = f"{CLONE}_{secrets.token_hex(4)}"  # another one is still being made when its maker was killed
        with psycopg.connect(self.admin, autocommit=True) as admin:
            for (old,) in admin.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{CLONE}%"]):
                with contextlib.suppress(psycopg.Error):
                    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(old)))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(SEED)))
        return self.config.but(metadata_backend=urlunsplit(urlsplit(self.admin)._replace(path=f"/{name}")))

    def take_rights(self) -> None:
        """Take away one right or another."""
        if self.is_server:
            privileges = sql.SQL(random.choice(PRIVILEGES))  # type: ignore[arg-type]
            self._administer(sql.SQL("REVOKE {} ON ALL TABLES IN SCHEMA cacheness FROM {}"), privileges)
            return
        places = random.choice([self._files(), self._folders(), [*self._files(), *self._folders()]])
        for path in places:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o500 if path.is_dir() else 0o400)

    def give_rights_back(self) -> None:
        """Give back what was taken."""
        if self.is_server:
            self._administer(sql.SQL("GRANT {} ON ALL TABLES IN SCHEMA cacheness TO {}"), sql.SQL("ALL"))
            return
        for path in [*self._folders(), *self._files()]:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o700 if path.is_dir() else 0o600)

    def _administer(self, statement: sql.SQL, privileges: sql.SQL) -> None:
        url = urlunsplit(urlsplit(self.admin)._replace(path=f"/{DATABASE}"))
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(statement.format(privileges, sql.Identifier(ROLE)))

    def _files(self) -> list[Path]:
        return [path for path in Path(self.config.cache_dir).glob("metadata.sqlite*") if path.is_file()]

    def _folders(self) -> list[Path]:
        blobs = self.folder / "blobs"
        inside = [path for path in blobs.rglob("*") if path.is_dir()] if blobs.exists() else []
        return [Path(self.config.cache_dir), blobs, *inside]


def obey_rights() -> None:
    """Have files' modes count for this process although root runs it."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header, data = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0)), ctypes.create_string_buffer(24)
        assert libc.capget(header, data) == 0
        sets = list(struct.unpack("<6I", data.raw))
        for capability in _OVERRIDES:
            sets[0] &= ~(1 << capability)
        assert libc.capset(header, struct.pack("<6I", *sets)) == 0


class SqliteWorld:
    """SQLite and files; the blobs stand apart from the metadata, so that a clone may share them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """Have it for the length of a block."""
        folder = self._folder
        yield World(config=Config(cache_dir=str(folder / "cache"), blob_store=f"file://{folder}/blobs"), folder=folder)

    def make_seed(self, world: World) -> None:
        """Keep a copy of the metadata as it is now, without any connection open."""
        shutil.copytree(world.config.cache_dir, world.folder / "seed")
        with contextlib.closing(sqlite3.connect(world.folder / "seed" / "metadata.sqlite")) as copy:
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class ServerWorld:
    """PostgreSQL and S3, with a standby that takes over; `pooler` stands before the database where one is given."""

    def __init__(self, folder: Path, bucket: str, pooler: str = "") -> None:
        self._folder = folder
        self._bucket = bucket
        self._pooler = pooler
        self._pooled = ExitStack()
        self._primary = servers.postgresql_server()
        self._standby: servers.Server | None = None
        self._old: servers.Server | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """Have it for the length of a block."""
        try:
            with psycopg.connect(self._primary.url, autocommit=True) as admin:
                role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(ROLE)))
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
            yield self._world()
        finally:
            self._pooled.close()
            for server in (self._standby, self._primary, self._old):
                if server is not None:
                    server.close()

    def make_seed(self, world: World) -> None:
        """Keep a copy of the metadata as it is now, without any connection open."""
        self._pooled.close()  # a pooler keeps connections, and a database in use cannot be copied
        with psycopg.connect(world.admin, autocommit=True) as admin:
            seed, database = sql.Identifier(SEED), sql.Identifier(DATABASE)
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(seed, database))
        self._standby = servers.postgresql_standby(self._primary.url)

    def world(self) -> World:
        """The stores as they are found from now on."""
        return self._world()

    def part(self) -> None:
        """From now on the standby misses what the primary writes; all that was written before, it has."""
        assert self._standby is not None
        with psycopg.connect(self._primary.url, autocommit=True) as here:
            [position] = here.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or [None]
        with psycopg.connect(self._standby.url, autocommit=True) as there:
            while there.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone() != (True,):
                time.sleep(0.05)
        self._standby.stop("SIGQUIT")

    def fail_over(self) -> World:
        """Kill the primary; the standby takes over with what it has, and the primary comes back, told of nothing."""
        assert self._standby is not None
        if self._old is not None:
            self._old.close()
        self._pooled.close()
        self._old, self._primary, self._standby = self._primary, self._standby, None
        self._old.stop("SIGKILL")
        self._primary.start()
        with psycopg.connect(self._primary.url, autocommit=True) as there:
            assert there.execute("SELECT pg_promote()").fetchone() == (True,)
        self._standby = servers.postgresql_standby(self._primary.url)
        world = self._world()
        world.give_rights_back()
        UnifiedCache(world.config).close()  # its marker names this server from now on
        self._old.start()
        old = urlsplit(self._old.url)._replace(path=f"/{DATABASE}")
        return replace(world, left_behind=world.config.but(metadata_backend=urlunsplit(old)))

    def _world(self) -> World:
        admin = self._primary.url
        parts = urlsplit(admin)._replace(path=f"/{DATABASE}")
        host = f"{ROLE}:{ROLE}@{parts.hostname}:{parts.port}"
        url = urlunsplit(parts._replace(netloc=host))
        if self._pooler:
            folder = Path(self._folder / "pooler")
            folder.mkdir(exist_ok=True)
            url = self._pooled.enter_context(poolers.POOLERS[self._pooler](url, folder, connections=10))
        config = Config(metadata_backend=url, blob_store=self._bucket, signing_key=KEY)
        return World(config=config, folder=self._folder, admin=admin)
