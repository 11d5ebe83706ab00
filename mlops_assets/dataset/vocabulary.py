"""The labels that each field of the answer may have, as far as they are known beforehand."""

from pathlib import Path

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset.expectations import ValidationSpec
from mlops_assets.dataset.row_frame import Labels
from mlops_assets.refs import RawDatasetRef


def given_labels(raw: RawDatasetRef, spec: ValidationSpec) -> Labels:
    """The labels of each field from the spec or from categories.json; none: from the data."""
    if raw.format == "labelled_csv" and len(spec.labels) != 1:
        raise LineageError(
            f"The answers in {raw.path} have one field, but `labels` names {len(spec.labels)}.",
            "Set `labels` of the op validated_dataset to one field, such as `intent: []`.",
        )
    listed = Path(raw.path) / "categories.json"
    from_list = raw.format == "labelled_csv" and listed.is_file()
    return {
        name: tuple(values) or (_categories(listed) if from_list else ())
        for name, values in spec.labels.items()
    }


def _categories(path: Path) -> tuple[str, ...]:
    try:
        values = orjson.loads(path.read_bytes())
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError
    except ValueError as error:
        raise LineageError(
            f"{path} is not a JSON list of strings.", "Restore it from the data's source."
        ) from error
    return tuple(values)
