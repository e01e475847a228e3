"""Great Expectations suites as blocking asset checks: what fails here stops everything after it.

Results are counts under the rules' names. Values never leave the frame: an unexpected e-mail is still an e-mail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from activations.errors import ActivationsError
from dagster_project.defs.suites import Frame, Rule, Suite
from dagster_project.resources import DUCKDB, Warehouse

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

NO_VALUES = {"result_format": "BASIC", "partial_unexpected_count": 0}


class CheckError(ActivationsError):
    """A rule could not be evaluated, which says nothing about the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule, whether it held, and how many rows broke it."""

    rule: str
    held: bool
    broken: int


def suite_check(suite: Suite) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey([suite.layer, suite.model]),
        name="expectations",
        description=suite.description,
        blocking=True,
        pool=DUCKDB,
    )
    def expectations(warehouse: Warehouse) -> dg.AssetCheckResult:
        with warehouse.connect(read_only=True) as connection:
            findings = list(evaluate(suite, connection))
        return verdict(findings)

    return expectations


def evaluate(suite: Suite, connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    for frame in suite.frames:
        rows = connection.sql(frame.query).df()
        yield from validate(rows, [*frame.rules, *_volume(frame, connection)])


def _volume(frame: Frame, connection: duckdb.DuckDBPyConnection) -> Iterator[Rule]:
    """The row count's band; its upper end may be a query."""
    if frame.at_least is None and frame.at_most is None:
        return
    most = frame.at_most
    if isinstance(most, str):
        [(most,)] = connection.execute(most).fetchall()
    arguments = {"min_value": frame.at_least, "max_value": most}
    yield Rule(
        name=f"rows are {frame.at_least or 0} to {'any number' if most is None else most}",
        expectation="ExpectTableRowCountToBeBetween",
        arguments=arguments,
    )


def validate(rows: pd.DataFrame, rules: Sequence[Rule]) -> Iterator[Finding]:
    """Ask Great Expectations one rule at a time, so that each answer keeps its name."""
    # Importing it takes seconds and hundreds of megabytes: only who validates pays.
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("warehouse").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    for rule in rules:
        expectation = getattr(gx.expectations, rule.expectation)(**rule.arguments)
        yield _finding(rule, batch.validate(expectation, result_format=NO_VALUES))


def _finding(rule: Rule, result: Any) -> Finding:
    _raise_when_not_evaluated(rule, result.exception_info or {})
    broken = result.result.get("unexpected_count", 0 if result.success else 1)
    return Finding(rule=rule.name, held=bool(result.success), broken=int(broken))


def _raise_when_not_evaluated(rule: Rule, exception_info: Mapping[str, Any]) -> None:
    """An expectation that raised also answers `success: false`. Its text may quote values, so it is not repeated."""
    answers = [exception_info] if "raised_exception" in exception_info else exception_info.values()
    if any(answer["raised_exception"] for answer in answers):
        raise CheckError(
            f"`{rule.name}` ({rule.expectation}) could not be evaluated. Compare its columns with the model"
        )


def verdict(findings: Sequence[Finding]) -> dg.AssetCheckResult:
    broken = {finding.rule: finding.broken for finding in findings if not finding.held}
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(findings)} rules hold" if not broken else f"broken: {'; '.join(broken)}",
        metadata={"rules": len(findings), **{f"broken/{rule}": rows for rule, rows in broken.items()}},
    )
