"""Data sets of files, and functions that a spawned process can import."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

ROWS = 300


def columns(n=ROWS, first=0):
    """Rows that say their own number: in ``a``, halved in ``b``, and in the label by threes."""
    number = np.arange(first, first + n)
    return {"a": number.astype(np.float32), "b": number / 2, "label": number % 3}


def write(folder, ending, n_files=3, n=ROWS, **more):
    """Write files of so many rows each, in groups of 47."""
    folder.mkdir(exist_ok=True)
    for number in range(n_files):
        held = {**columns(n, number * n), **{name: make(n, number * n) for name, make in more.items()}}
        path = folder / f"part-{number}.{ending}"
        if ending == "npy":
            np.save(path, np.stack([held["a"], held["b"].astype(np.float32)], axis=1))
            np.save(path.with_suffix(".label.npy"), held["label"])
            continue
        table = pa.table(held)
        if ending == "parquet":
            pq.write_table(table, path, row_group_size=47)
        elif ending == "csv":
            pyarrow.csv.write_csv(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=47)
    return folder


def as_mapping(batch):
    """Inputs of two kinds: numbers, and texts."""
    return {"x": torch.from_numpy(batch["a"].to_numpy().copy()), "t": [str(v) for v in batch["b"].to_pylist()]}
