"""What is logged: below one name, a line a message, in the words of the figures."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheness import UnifiedCache
from cacheness.logs import logger_of

ROOT = Path(__file__).parent.parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
HOSTILE = "one\ntwo\r\x1b[31mred\u202e"


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call of a method, with where it stands."""
    for folder in ("core/cacheness", "cacheness_dask", "cacheness_prefect"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_each_message_is_one_line_and_its_values_are_arguments() -> None:
    found = 0
    for where, call in calls():
        assert isinstance(call.func, ast.Attribute)
        logger = call.func.value
        if call.func.attr not in LEVELS or not (isinstance(logger, ast.Name) and logger.id in ("_log", "logger")):
            continue
        found += 1
        message = call.args[0]
        assert isinstance(message, ast.Constant), f"{where}: the message is put together"
        assert "\n" not in message.value, where
        assert not message.value.endswith("."), where
    assert found > 40


def test_all_loggers_are_below_one_name() -> None:
    names = {
        (where.partition(":")[0], ast.unparse(call.args[0]))
        for where, call in calls()
        if ast.unparse(call.func) == "logging.getLogger"
    }
    others = {(file, name) for file, name in names if not name.startswith("'cacheness")}
    assert others == {("core/cacheness/logs.py", "module"), ("core/cacheness/circuit.py", "'stamina'")}


def test_names_and_errors_neither_end_a_line_nor_steer_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "cacheness"):
        logger_of("cacheness.anything").warning("%s: %s, %d of %.1f", HOSTILE, ValueError(HOSTILE), 3, 4)
    (record,) = caplog.records
    shown = "one\\ntwo\\r\\x1b[31mred\\u202e"
    assert record.getMessage() == f"{shown}: {shown}, 3 of 4.0"
    assert (record.name, record.funcName) == (
        "cacheness.anything",
        "test_names_and_errors_neither_end_a_line_nor_steer_a_terminal",
    )


def test_a_miss_is_logged_with_the_reason_that_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def first(x: int) -> int:
        return x

    def second(x: int) -> int:
        return -x

    second.__module__ = first.__module__ = first.__qualname__ = second.__qualname__ = f"steps{HOSTILE}"
    with UnifiedCache(tmp_path) as cache, caplog.at_level(logging.INFO, "cacheness"):
        for function, x in ((first, 1), (first, 1), (first, 2), (second, 1)):
            cache.cached(function)(x)
        counted = {row.name: row.misses for row in cache.report(by="reason")}
    logged = [record for record in caplog.records if hasattr(record, "outcome")]
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert [record.outcome for record in logged] == ["miss"] * 3
    assert {record.reason for record in logged} == counted.keys()
    assert {record.function for record in logged} == {f"steps{HOSTILE}:steps{HOSTILE}"}
