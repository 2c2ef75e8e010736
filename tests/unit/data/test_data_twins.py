from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.large import sorted_buckets
from prunus.data.large.sorted_buckets import digest_of_texts
from prunus.data.twins import find_twins


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 3)), max_size=60))
def test_twins_are_those_that_a_walk_from_the_strongest_part_finds(rows):
    contents = [str(content).encode() for content, _ in rows]
    part_of = np.array([part for _, part in rows], np.int8)
    owner, gone, stays, kept = {}, [], [], Counter()
    for part in range(4):
        for row in np.flatnonzero(part_of == part).tolist():
            first = owner.setdefault(contents[row], (part, row))
            if first[0] == part:
                kept[part, contents[row]] += 1
            else:
                gone.append(row)
                stays.append(first[1])
    found = find_twins(digest_of_texts(contents), part_of, 3)
    assert found.gone.tolist() == gone
    assert found.stays.tolist() == stays
    assert found.n_repeats == sum(n for (part, _), n in kept.items() if part == 3 and n > 1)


def test_many_files_of_records_give_what_one_gives(monkeypatch):
    contents = [str(k % 700).encode() for k in range(2000)]
    part_of = (np.arange(2000) % 4).astype(np.int8)
    whole = find_twins(digest_of_texts(contents), part_of, 3)
    monkeypatch.setattr(sorted_buckets, "_BUCKET_ROWS", 100)
    dealt = find_twins(digest_of_texts(contents), part_of, 3)
    assert dealt.gone.tolist() == whole.gone.tolist()
    assert dealt.stays.tolist() == whole.stays.tolist()
    assert dealt.n_repeats == whole.n_repeats
