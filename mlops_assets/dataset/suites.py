"""Runs suites of real Great Expectations over data that is larger than memory.

``ChunkedSuite`` validates pandas frames one after another and adds up what they say, so that
``mostly`` is judged over all rows and Data Docs get one page, not one for each chunk.
``judge_table`` validates a table of an SQLite file: GX counts there, in SQL.

GX's full result format lists every offending row. A chunk needs that list (it says which rows
to set aside) and its length is bounded; a table's does not, and SUMMARY keeps it short.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.dataset.datadocs import run_identifier

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 10  # offending values shown in Data Docs; labels, roles and lengths, never texts
LISTS = ("partial_unexpected_list", "partial_unexpected_index_list")


class ChunkedSuite:
    """One suite over a frame that comes in chunks."""

    def __init__(self, context: Any, name: str, expectations: Sequence[Any]) -> None:
        self._context = context
        self._suite = _add_suite(context, name, expectations)
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        self._batches = asset.add_batch_definition_whole_dataframe("all")
        self._merged: Any = None

    def judge(self, frame: "pd.DataFrame") -> dict[int, str]:
        """Validate the next chunk; why rows are set aside, by the number in its column ``row``.

        The first expectation of the suite that names a row wins.
        """
        batch = self._batches.get_batch({"dataframe": frame})
        result = batch.validate(
            self._suite,
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["row"],
                "partial_unexpected_count": SAMPLES,
                "return_unexpected_index_query": False,
            },
        )
        reasons: dict[int, str] = {}
        for item in in_order(result):
            reason = item.expectation_config.meta.get("reason")
            for place in item.result.get("unexpected_index_list") or () if reason else ():
                column = item.expectation_config.kwargs["column"]
                reasons.setdefault(int(place["row"]), place[column] if reason == column else reason)
        self._add(result)
        return reasons

    def verdict(self) -> tuple[str, ...]:
        """What failed over all chunks, each with what was observed; the merged result becomes
        a page of Data Docs."""
        if self._merged is None:
            return ()
        for item in self._merged.results:
            _judge_counts(item)
        _store(self._context, self._merged)
        return failures(self._merged)

    def _add(self, result: Any) -> None:
        for item in result.results:
            item.result.pop("unexpected_list", None)
            item.result.pop("unexpected_index_list", None)
        if self._merged is None:
            self._merged = result
            return
        for total, item in zip(in_order(self._merged), in_order(result), strict=True):
            _add_up(total, item)


def judge_table(
    context: Any, name: str, database: Path, table: str, expectations: Sequence[Any]
) -> tuple[str, ...]:
    """Validate a table of an SQLite file with GX's own SQL; what failed."""
    import great_expectations as gx

    suite = _add_suite(context, name, expectations)
    source = context.data_sources.add_sqlite(name, connection_string=f"sqlite:///{database}")
    batches = source.add_table_asset(name, table_name=table).add_batch_definition_whole_table("all")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batches, suite=suite)
    )
    try:
        result = definition.run(
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES},
            run_id=run_identifier(),
        )
    finally:
        source.get_execution_engine().close()
    return failures(result)


def in_order(result: Any) -> Iterator[Any]:
    """The expectations' results in the order of the suite, which GX does not keep."""
    return iter(sorted(result.results, key=lambda item: item.expectation_config.meta["order"]))


def failures(result: Any) -> tuple[str, ...]:
    """The expectations that failed, each with what was observed."""
    return tuple(_describe(item) for item in in_order(result) if not item.success)


def _add_suite(context: Any, name: str, expectations: Sequence[Any]) -> Any:
    import great_expectations as gx

    suite = context.suites.add(gx.ExpectationSuite(name))
    for order, expectation in enumerate(expectations):
        expectation.meta = {**(expectation.meta or {}), "order": order}
        suite.add_expectation(expectation)
    return suite


def _add_up(total: Any, item: Any) -> None:
    """Add a chunk's result of one expectation to the sum; a failure that is not counted stays."""
    if "element_count" not in item.result or "element_count" not in total.result:
        if not item.success:
            total.success, total.result = False, item.result
            total.exception_info = item.exception_info
        return
    sums = total.result
    for name in ("element_count", "unexpected_count", "missing_count"):
        if name in sums:
            sums[name] += item.result[name]
    for name in LISTS:
        if name in sums:
            sums[name] = (sums[name] + item.result.get(name, []))[:SAMPLES]
    if "partial_unexpected_counts" in sums:
        sums["partial_unexpected_counts"] = _commonest(sums, item.result)


def _commonest(*results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The commonest offending values; of each chunk its ten commonest are counted."""
    counts: Counter[Any] = Counter()
    for result in results:
        for entry in result.get("partial_unexpected_counts") or ():
            if "value" in entry:
                counts[entry["value"]] += entry["count"]
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [{"value": value, "count": count} for value, count in ranked[:SAMPLES]]


def _judge_counts(item: Any) -> None:
    """Recompute the percentages and the verdict from the summed counts, as GX's map
    expectations do: rows without a value are neither right nor wrong."""
    result = item.result
    if "element_count" not in result or _raised(item):
        return
    rows, wrong = result["element_count"], result["unexpected_count"]
    present = rows - result.get("missing_count", 0)
    mostly = item.expectation_config.kwargs.get("mostly", 1)
    item.success = present == 0 or (present - wrong) / present >= mostly
    share = 100 * wrong / present if present else None
    result["unexpected_percent"] = share
    if "missing_count" in result:
        result["unexpected_percent_nonmissing"] = share
        result["unexpected_percent_total"] = 100 * wrong / rows if rows else None
        result["missing_percent"] = 100 * result["missing_count"] / rows if rows else None


def _store(context: Any, merged: Any) -> None:
    """Put a merged result where GX's own run would have put it, for Data Docs."""
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    passed = sum(1 for item in merged.results if item.success)
    of = len(merged.results)
    merged.success = passed == of
    merged.statistics = {
        "evaluated_expectations": of,
        "successful_expectations": passed,
        "unsuccessful_expectations": of - passed,
        "success_percent": 100 * passed / of,
    }
    run = run_identifier()
    merged.meta |= {"run_id": run, "validation_time": run.run_time, "batch_parameters": None}
    suite = ExpectationSuiteIdentifier(name=merged.suite_name)
    context.validation_results_store.store_validation_results(
        suite_validation_result=merged,
        suite_validation_result_identifier=ValidationResultIdentifier(
            batch_identifier=merged.batch_id, expectation_suite_identifier=suite, run_id=run
        ),
        expectation_suite_identifier=suite,
    )


def _raised(item: Any) -> bool:
    return not item.success and bool((item.exception_info or {}).get("raised_exception"))


def _describe(item: Any) -> str:
    config = item.expectation_config
    words = "".join(part.capitalize() for part in config.type.split("_"))
    column = config.kwargs.get("column")
    seen = item.result.get("observed_value")
    if (percent := item.result.get("unexpected_percent")) is not None:
        seen = f"{item.result['unexpected_count']} rows, {percent:.1f}%"
    error = (item.exception_info or {}).get("exception_message")
    shown = error or f"observed {seen}"
    return f"{words}({column}): {shown}" if column else f"{words}: {shown}"
