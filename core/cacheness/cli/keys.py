"""Commands about the keys that sign entries."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cacheness import platform
from cacheness.cli.endings import CouldNot, Misuse
from cacheness.cli.options import AsJson, DryRun, Place, about_a_cache
from cacheness.cli.screen import NAME, NUMBER, WHOLE, hint, print_json, progress, say, table, telling
from cacheness.printable import printable
from cacheness.units import number_of

app = typer.Typer(no_args_is_help=True, help="Create keys, choose whose entries are accepted, and sign entries again.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: ci, or ci-2027. It is written into each entry.")],
    *,
    to: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the private key there, for its owner only, and not here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a signing key, with a public key for readers.

    The first line is for CACHENESS_SIGNING_KEY of the writer, the second for CACHENESS_TRUST of all
    others. With --to, the first line is written to a file, for CACHENESS_SIGNING_KEY_FILE.
    """
    from cacheness.errors import ConfigError
    from cacheness.results.signing_keys import new_private_key, public_keys_of

    try:
        private = new_private_key(name)
    except ConfigError as error:
        raise Misuse(str(error)) from None
    (public,) = public_keys_of(private)
    if to is not None:
        _write(to, private)
    if as_json:
        print_json({"trust": public} | ({"signing_key": private} if to is None else {"signing_key_file": to}))
        return
    if to is None:
        print(private)
    print(public)


@app.command()
def trust(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys to trust as well, ed25519-pub:NAME:KEY or hmac:ID.")
    ] = None,
    *,
    without: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Drop the key of this name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a value for CACHENESS_TRUST: the current one, with these keys, and without the removed ones.

    If there is no current value, it begins with the public key of the signing key. It changes
    nothing: set the variable to the printed line. Entries of a removed key are no longer read, old
    ones included.
    """
    from cacheness.config import Config
    from cacheness.errors import ConfigError
    from cacheness.results.signing_keys import public_keys_of, read_signing_keys, read_trusted_keys, trusted_items

    try:
        config = Config.from_env()
        own = config.signing_key
        items = trusted_items(config.trust) if config.trust else public_keys_of(own or "")
        items = list(dict.fromkeys([*items, *(keys or [])]))
        known = {item.split(":")[1] for item in items if ":" in item}
        if unknown := set(without or []) - known:
            raise CouldNot(
                f"there is no trusted key {', '.join(sorted(unknown))}; there is: {', '.join(sorted(known))}"
            )
        left = [item for item in items if item.partition(":")[2].partition(":")[0] not in set(without or [])]
        if not left:
            raise Misuse("no key would be left: name one, ed25519-pub:NAME:KEY as `cacheness keys new` prints it")
        read_trusted_keys(",".join(left), {} if own is None else read_signing_keys(own))
    except ConfigError as error:
        raise Misuse(str(error)) from None
    if as_json:
        print_json({"trust": ",".join(left)})
    else:
        print(",".join(left))


@app.command("list")
@about_a_cache
def list_keys(*, place: Place, as_json: AsJson = False) -> None:
    """List the keys of this cache and those that entries name, with the number of their entries. Reads every row."""
    with place.opened() as cache:
        found = cache.signers()
    if as_json:
        print_json([{"id": one.id, "trusted": one.is_trusted, "signs": one.signs, "entries": one.entries,
                     "forged": one.forged} for one in found])  # fmt: skip
        return
    rows: list[tuple[str, ...]] = [
        (
            printable(one.id) or "(none)",
            "signs" if one.signs else "trusted" if one.is_trusted else "not trusted",
            f"{one.entries:,}",
            f"{one.forged:,}",
        )
        for one in found
    ]
    table({"key": NAME, "is": WHOLE, "entries": NUMBER, "forged": NUMBER}, rows, ["forged"])
    if any(one.entries and not one.is_trusted for one in found):
        hint("entries of keys that are not trusted are not read: trust= or signing_key= would have to hold them")


@app.command()
@about_a_cache
def sign(*, place: Place, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Sign again, with the first key, the entries that another trusted key has signed.

    Run it before an old key is removed. Invalid entries are not changed, and it can be run again after Ctrl-C.
    """
    signed = 0
    with (
        place.opened() as cache,
        telling(lambda: f"{number_of(signed, 'entry')} signed until then"),
        progress() as bar,
    ):
        task = bar.add_task("signing", total=cache.stats()["entries"])

        def show(looked_at: int, so_far: int) -> None:
            nonlocal signed
            signed = so_far
            bar.update(task, completed=looked_at, description=f"signing: {number_of(so_far, 'entry')} signed")

        signed = cache.sign_again(dry_run=dry_run, progress=show)
    if as_json:
        print_json({"entries": signed, "signed": not dry_run})
    else:
        say(f"{number_of(signed, 'entry')} {'would be signed again' if dry_run else 'signed again'}")


def _write(path: str, text: str) -> None:
    try:
        handle = os.open(os.path.expanduser(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CouldNot(f"{path} exists already, and may hold a key that is in use: name another file") from None
    except OSError as error:
        raise CouldNot(f"the private key cannot be written to {path}: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        platform.sync(file.fileno())
