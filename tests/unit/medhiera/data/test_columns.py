"""Columns of rows: by what a run that resumes knows its rows again."""

import math

from datasets import Dataset, concatenate_datasets

from medhiera.data.columns import digest_rows


def test_rows_have_the_digest_of_their_values_and_order() -> None:
    texts, numbers = ["a,", '"b', "ab", ""], [[0.0, math.nan], [1.0, 0.0], [0.0, 0.0], [math.nan, 1.0]]
    columns = {"image_id": texts, "labels": numbers, "sex": ["M"] * 4}
    rows, names = Dataset.from_dict(columns), ("image_id", "labels")
    parts = [rows.select([3, 0]), rows.select([1]), rows.select([2])]
    assert digest_rows(concatenate_datasets(parts).select([1, 2, 3, 0]), names) == digest_rows(rows, names)
    assert digest_rows(Dataset.from_dict(columns | {"sex": ["F"] * 4}), names) == digest_rows(rows, names)
    others = [
        rows.select([0, 1, 3, 2]), rows.select([0, 1, 2]),
        Dataset.from_dict(columns | {"image_id": ["a", ',"b', "ab", ""]}),
        Dataset.from_dict(columns | {"labels": [[0.0, 0.0], *numbers[1:]]}),
    ]  # fmt: skip
    assert len({digest_rows(one, names) for one in (rows, *others)}) == 5
