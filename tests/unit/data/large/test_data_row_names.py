import numpy as np
import torch

from prunus.data.large.row_names import ChosenNames, FiledNames, JoinedNames, Names, RowNumbers

TEXTS = ["a", "", "ü2", "long name"]


def filed():
    encoded = [text.encode() for text in TEXTS]
    return FiledNames(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(text) for text in encoded]))


def test_names_are_those_of_a_tuple_however_they_are_asked_for():
    numbers = tuple(map(str, range(9)))
    for names, expected in (
        (RowNumbers(9), numbers),
        (RowNumbers(3, np.array([2, 5, 7])), ("2", "5", "7")),
        (filed(), tuple(TEXTS)),
        (ChosenNames(filed(), torch.tensor([3, 0])), ("long name", "a")),
        (JoinedNames([("", filed()), ("test:", ["a"])]), (*TEXTS, "test:a")),
        (JoinedNames([("", RowNumbers(2)), ("v:", []), ("t:", RowNumbers(2))]), ("0", "1", "t:0", "t:1")),
    ):
        assert names == expected
        assert expected == names
        assert tuple(names) == expected
        assert names[-1] == expected[-1]
        assert names[1:] == expected[1:]
        assert "nobody" not in names
        assert names != expected[:-1]


def test_of_some_names_in_a_row_no_others_are_made():
    class Asked(Names):
        def __len__(self):
            return 10**15  # more numbers than memory holds

        def at(self, rows):
            return list(map(str, rows.tolist()))

    names = Asked()
    assert names[7:9] == ("7", "8")
    assert names[-2:] == (str(10**15 - 2), str(10**15 - 1))
    assert names[6:0:-3] == ("6", "3")
    assert names[5:5] == ()


def test_joined_names_come_in_the_order_in_which_they_are_asked_for_and_a_part_is_asked_once(monkeypatch):
    asked = []
    plain = RowNumbers.at
    monkeypatch.setattr(RowNumbers, "at", lambda self, rows: asked.append(len(rows)) or plain(self, rows))
    names = JoinedNames([("", RowNumbers(5)), ("t:", RowNumbers(3))])
    assert names.at(np.array([6, 0, 7, 4, 5])) == ["t:1", "0", "t:2", "4", "t:0"]
    assert asked == [2, 3]
