"""The page about a file of texts does what it shows."""

import csv
import random
import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "texts.md"
SUBJECTS = ["film", "plot", "story", "music", "scenes", "script", "actor", "ending"]


def test_the_program_of_the_page_runs_on_a_file_of_texts(tmp_path, monkeypatch, capsys):
    draw = random.Random(0)
    words = {"positive": ["great", "lovely"], "negative": ["awful", "boring"]}
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["review", "sentiment"])
        for _ in range(150):
            label = draw.choice(sorted(words))
            said = draw.choices(SUBJECTS, k=6) + draw.choices(words[label], k=2)
            written.writerow([" ".join(said), label])
        written.writerow([" ".join(said).upper() + "!", label])
    program = tmp_path / "program.py"
    program.write_text(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program))
    told = capsys.readouterr().out
    n_found = int(re.search(r"(\d+) of 151 texts are near-duplicates", told)[1])
    assert n_found >= 1
    assert told.splitlines()[-1].startswith("accuracy")
