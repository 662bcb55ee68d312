"""Which edits of a function, or of what it reaches, give it another fingerprint."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cacheness.keys import fingerprint
from tests.keys.edits import HITS, MISSES, Edit, load_both


@pytest.fixture(autouse=True)
def _clean_modules() -> Iterator[None]:
    yield
    for name in ("user_helpers", "user_module"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("edit", MISSES, ids=lambda edit: edit.name)
def test_an_edit_that_can_change_the_result_is_a_miss(edit: Edit) -> None:
    before = fingerprint(load_both().clean)
    after = fingerprint(load_both(edit).clean)
    assert before.digest != after.digest


@pytest.mark.slow
@pytest.mark.parametrize("edit", HITS, ids=lambda edit: edit.name)
def test_an_edit_that_cannot_change_the_result_is_a_hit(edit: Edit) -> None:
    before = fingerprint(load_both().clean)
    after = fingerprint(load_both(edit).clean)
    assert before.digest == after.digest


def test_loading_the_same_code_again_is_a_hit() -> None:
    assert fingerprint(load_both().clean) == fingerprint(load_both().clean)


def test_nothing_of_the_corpus_goes_unfollowed() -> None:
    assert fingerprint(load_both().clean).unfollowed == ()
