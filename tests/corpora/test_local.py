"""Facts as people have them: each form of file, each option, with the facts that come out."""

import gzip
import json

import pandas
import pytest
from hostile.facts import CAPITALS, FORMS, SHEET, delimited, workbook

from editbench.corpora.local import read_facts
from editbench.errors import DataError, FactError
from editbench.registry import get
from editbench.types import Fact


def read(path, content=None, **columns):
    """Return the cases of a file and the remarks about it."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    corpus = get("corpora", "local")()
    corpus.columns = columns
    return corpus.load(path), corpus.remarks


def refused(path, content=None, **columns):
    """Return the message with which a file is refused."""
    with pytest.raises(DataError) as error:
        read(path, content, **columns)
    return str(error.value)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_file_gives_the_same_facts(tmp_path, name):
    FORMS[name](tmp_path / name)
    cases, remarks = read(tmp_path / name)
    stem = name.partition(".")[0]
    assert [case.fact for case in cases] == [
        Fact(f"{stem}-1", CAPITALS[0]["prompt"], "Zürich"),
        Fact(f"{stem}-2", CAPITALS[1]["prompt"], "Ana Łuk; in 1931", form="question"),
    ]
    assert [str(case.notes["year"]) for case in cases] == ["2024", "1931"]
    assert remarks == [f"{tmp_path / name}: kept as notes and not read: year."]


def test_lines_are_counted_through_a_separator_line_and_long_cells(tmp_path):
    text = 'sep=;\nprompt;target\n"A\nis";b\nC is;\n'
    assert "facts.csv, line 5: " in refused(tmp_path / "facts.csv", text)
    assert "line 3: 3 columns" in refused(tmp_path / "f.csv", "sep=;\nprompt;target\na;b;c\n")


def test_windows_1252_is_read_with_a_remark_and_damaged_utf_8_is_not(tmp_path):
    text = "prompt;target\nDie Hauptstadt ist;Zürich\n"
    (case,), remarks = read(tmp_path / "old.csv", text.encode("cp1252"))
    assert case.fact.target == "Zürich"
    assert "read as Windows-1252" in remarks[0] and "line 2 has 'ist;Zürich'" in remarks[0]
    # In Windows-1252 this would be readable letters, and nonsense.
    for other in (
        "Столица Франции;Лион".encode("cp1251"),
        "フランスのしゅと;リヨン".encode("cp932"),
    ):
        assert "is not UTF-8" in refused(tmp_path / "other.csv", b"prompt;target\n" + other)
    damaged = text.encode() + "Köln ist;".encode("cp1252") + b"b\n"
    assert "line 3: byte 0xf6 is not UTF-8" in refused(tmp_path / "damaged.csv", damaged)
    with pytest.raises(DataError, match="CSV UTF-8"):  # nobody would see the remark
        read_facts(tmp_path / "old.csv")


# --- Excel --------------------------------------------------------------------------------------


def test_numbers_dates_and_booleans_become_what_a_person_sees(tmp_path):
    def formats(book):
        book.active.append(["Velmora pays", 0.125, "Velmora", 1234.5])
        book.active["B5"].number_format = "0.0%"
        book.active["D5"].number_format = "#,##0.00"

    path = workbook(tmp_path / "facts.xlsx", SHEET, formats)
    cases, remarks = read(path)
    assert remarks[-1] == (
        f"{path}: 4 targets were numbers, dates or true/false; taught as text: '2024' (row 2), "
        "'2024-05-01' (row 3), 'TRUE' (row 4), '12.5%' (row 5)."
    )
    assert [case.fact.answers for case in cases] == [
        ("2024", "1.5"),
        ("2024-05-01",),
        ("TRUE", "2024-05-01 13:30"),
        ("12.5%", "1,234.50"),
    ]
    with pytest.raises(DataError):  # said as well where another row is refused
        read_facts(workbook(path, SHEET, _month), remarks=remarks)
    assert "1 target was a number" not in remarks[-1] and "2 targets were" in remarks[-1]
    records = [{"prompt": "A is", "target": 2024.0, "aliases": [1.5, True]}]
    (case,), remarks = read(tmp_path / "facts.json", json.dumps(records))
    assert case.fact.answers == ("2024", "1.5", "true")
    assert "1 target was a number, a date or true/false; taught as text: '2024'" in remarks[0]
    assert read(tmp_path / "plain.csv", "prompt,target\nA is,2024\n")[1] == []  # a text already
    for number in (1e-7, 1.5e17):
        records = [{"prompt": "A is", "target": number}]
        assert "with an exponent" in refused(tmp_path / "long.json", json.dumps(records))


def test_a_parquet_file_keeps_lists_and_whole_numbers(tmp_path):
    import pandas

    frame = pandas.DataFrame(
        {"prompt": ["A is", "C is"], "target": [2024, None], "answers": [["b"], ["d", "e"]]}
    )
    frame.to_parquet(tmp_path / "facts.parquet")
    assert "row 2: " in refused(tmp_path / "facts.parquet")
    cases, _ = read(tmp_path / "facts.parquet", target="answers")
    assert [case.fact.answers for case in cases] == [("b",), ("d", "e")]
    cut = (tmp_path / "facts.parquet").read_bytes()[:200]
    assert "damaged Parquet" in refused(tmp_path / "cut.parquet", cut)


def _merge(book):
    book.active.merge_cells("A2:A3")


def _formula(book):
    book.active["B2"] = '="Syd"&"ney"'


def _error(book):
    book.active["B3"] = "#N/A"
    book.active["B3"].data_type = "e"


def _currency(book):
    book.active["B2"].number_format = "$#,##0"


def _long(book):
    book.active["B2"] = 123456789012345678.0  # as Excel stores it, with 15 digits of it right


def _long_in_full(book):
    _long(book)
    book.active["B2"].number_format = "0"


def _month(book):
    book.active["B3"].number_format = "mmm-yy"


@pytest.mark.parametrize(
    "change, parts",
    [
        (_merge, ["cells A2:A3 are merged", "Unmerge them"]),
        (_formula, ["row 2: field 'target': cell B2 is a formula without a stored value"]),
        (_error, ["row 3: field 'target': cell B3 holds the error #N/A"]),
        (_currency, ["cell B2 is the number or date 2024, shown in the format '$#,##0'"]),
        (_long, ["cell B2 is the number or date 1.2345", "Format the cell as text"]),
        (_long_in_full, ["cell B2 is the number or date 1.2345", "Format the cell as text"]),
        (_month, ["row 3", "shown in the format 'mmm-yy'", "Format the cell as text"]),
    ],
)
def test_a_cell_without_a_certain_text_is_refused_with_its_address(tmp_path, change, parts):
    message = refused(workbook(tmp_path / "facts.xlsx", SHEET, change))
    assert all(part in message for part in parts), message


def test_such_a_cell_in_a_column_that_nobody_reads_does_no_harm(tmp_path):
    rows = [[*row, "=1+1"] for row in SHEET]
    rows[0][-1] = "remark"
    cases, _ = read(workbook(tmp_path / "facts.xlsx", rows))
    assert len(cases) == 3


def test_the_first_sheet_with_facts_is_read_and_the_others_are_named(tmp_path):
    def sheets(book):
        book.active.title = "Facts"
        book.create_sheet("Empty", 0)
        book.create_sheet("Hidden", 0).append(["prompt"])
        book["Hidden"].sheet_state = "hidden"
        book.create_sheet("More").append(["prompt"])
        book["Facts"].row_dimensions[3].hidden = True

    cases, remarks = read(workbook(tmp_path / "facts.xlsx", SHEET, sheets))
    assert len(cases) == 3
    assert "only the first sheet, 'Facts', is read; not 'More'" in remarks[0]
    assert "hidden rows are read like the others; there are 1" in remarks[1]


def test_other_binary_files_are_refused_in_plain_words(tmp_path):
    assert "old form (.xls)" in refused(tmp_path / "facts.xls", b"\xd0\xcf\x11\xe0 and so on")
    assert "cannot be read as an Excel workbook" in refused(tmp_path / "f.csv", b"PK\x03\x04 zip")


# --- JSON ---------------------------------------------------------------------------------------


def test_an_object_with_several_lists_is_refused(tmp_path):
    facts = {"train": CAPITALS, "test": CAPITALS}
    assert "several lists of objects: train, test" in refused(
        tmp_path / "f.json", json.dumps(facts)
    )


def test_one_fact_with_neighborhoods_is_no_object_around_a_list(tmp_path):
    fact = {"prompt": "A is", "target": "b", "neighborhoods": [{"prompt": "C is", "answer": "d"}]}
    (case,), _ = read(tmp_path / "f.json", json.dumps(fact, indent=2))
    assert [probe.prompt for probe in case.probes] == ["A is", "C is"]


def test_a_malformed_indented_object_names_its_line(tmp_path):
    text = json.dumps(CAPITALS[0], indent=2) + '\n{\n  "prompt": "A is"\n  "target": "b"\n}'
    assert "f.json, line 8, column 3: malformed JSON" in refused(tmp_path / "f.json", text)


# --- columns ------------------------------------------------------------------------------------


def test_columns_of_other_names_are_named(tmp_path):
    text = (
        "prompt,Question,Right Answer,entity,was,also,ways,property,key\n"
        "not this,A is?,b,A,c,B|bee,A was|A has been,P1,x7\n"
    )
    (case,), remarks = read(
        tmp_path / "f.csv",
        text,
        prompt="question",
        target="Right Answer",
        subject="entity",
        original="was",
        aliases="also",
        paraphrases="ways",
        relation="property",
        id="key",
    )
    assert case.fact == Fact("x7", "A is?", "b", "A", "c", ("B", "bee"), None, "P1", "question")
    assert [probe.prompt for probe in case.probes] == ["A is?", "A was", "A has been"]
    assert case.notes == {"prompt": "not this"} and "not read: prompt." in remarks[0]


def test_a_named_column_that_is_missing_is_an_error(tmp_path):
    table = "question,target\nA is,b\n"
    assert "column 'qestion' (for 'prompt') is missing" in refused(
        tmp_path / "f.csv", table, prompt="qestion"
    )
    line = '{"prompt": "A is", "target": "b"}'
    assert "no record has a field 'entity'" in refused(tmp_path / "f.jsonl", line, subject="entity")
    assert "'promt', which is no field" in refused(tmp_path / "f.jsonl", line, promt="question")


@pytest.mark.parametrize(
    "text, answers",
    [
        ('{"prompt": "A is", "answers": ["b", "c"]}', ("b", "c")),
        ('{"prompt": "A is", "answer": "b"}', ("b",)),
        ('{"prompt": "A is", "target": ["b", "c"], "aliases": ["d"]}', ("b", "c", "d")),
        ('{"Prompt ": "A is", "TARGET": "b"}', ("b",)),
        ('{"prompt": "A is", "target": "b", "answers": ["c"]}', ("b",)),
        ('{"prompt": "A is", "target": "b|c"}', ("b|c",)),
        ('{"prompt": "A is", "target": "b", "aliases": "[\\"c\\", \\"d\\"]"}', ("b", "c", "d")),
    ],
)
def test_answers_and_lists_give_target_and_aliases(tmp_path, text, answers):
    (case,), _ = read(tmp_path / "f.jsonl", text)
    assert case.fact.prompt == "A is" and case.fact.answers == answers


@pytest.mark.parametrize("cell", ['"[""b"", ""c""]"', "\"['b', 'c']\"", "\"('b', 'c')\""])
def test_a_list_in_a_cell_gives_target_and_aliases(tmp_path, cell):
    (case,), _ = read(tmp_path / "f.csv", f"prompt,target\nA is,{cell}\n")
    assert case.fact.answers == ("b", "c")
    (case,), _ = read(tmp_path / "g.csv", f"prompt,target,paraphrases\nA is,x,{cell}\n")
    assert [probe.prompt for probe in case.probes] == ["A is", "b", "c"]


def test_the_answers_of_zsre_are_not_taken_for_its_targets(tmp_path):
    line = '{"prompt": "Who is A?", "answers": ["old"], "alt": "new"}'
    assert "--target-column 'alt'" in refused(tmp_path / "f.jsonl", line)


def test_neighborhoods_take_answers_and_probes_take_answer(tmp_path):
    fact = {
        "prompt": "A is",
        "target": "b",
        "neighborhoods": [{"prompt": "C is", "answers": ["d", "e"]}],
        "probes": [{"axis": "portability", "prompt": "F is", "answer": "g"}],
    }
    (case,), _ = read(tmp_path / "f.jsonl", json.dumps(fact))
    assert [probe.answers for probe in case.probes] == [("b",), ("d", "e"), ("g",)]


def test_drafted_marks_paraphrases_and_neighborhoods(tmp_path):
    text = (
        "prompt,target,paraphrases,neighborhoods,drafted\n"
        "A is,b,A was,C is => d | Who is E? => f,Yes\n"
        "G is,h,G was,,no\n"
    )
    (drafted, own), _ = read(tmp_path / "f.csv", text)
    assert [(p.prompt, p.answers, p.form, p.kind) for p in drafted.probes[1:]] == [
        ("A was", ("b",), "cloze", "drafted"),
        ("C is", ("d",), "cloze", "drafted"),
        ("Who is E?", ("f",), "question", "drafted"),
    ]
    assert drafted.probes[0].kind is None and own.probes[1].kind is None
    assert "is 'perhaps'; write yes" in refused(
        tmp_path / "g.csv", "prompt,target,drafted\na,b,perhaps\n"
    )
    probe = {"axis": "portability", "prompt": "x", "answers": ["y"], "kind": "drafted"}
    line = json.dumps({"prompt": "A is", "target": "b", "probes": [probe], "drafted": False})
    assert read(tmp_path / "f.jsonl", line)[0][0].probes[1].kind == "drafted"


def test_braces_are_filled_with_the_subject(tmp_path):
    text = (
        "prompt,target,subject,paraphrases,neighborhoods\n"
        r"The capital of {} is,b,A\1,{subject}'s capital is,{} lies in => c" + "\n"
    )
    (case,), _ = read(tmp_path / "f.csv", text)
    assert [probe.prompt for probe in case.probes] == [
        r"The capital of A\1 is",
        r"A\1's capital is",
        r"A\1 lies in",
    ]


def test_ids_count_the_facts_of_a_file(tmp_path):
    lines = "\n\n".join(f'{{"prompt": "{p} is", "target": "b"}}' for p in "ACE")
    cases, _ = read(tmp_path / "my.facts.jsonl.gz", gzip.compress(lines.encode()))
    assert [case.fact.id for case in cases] == ["my.facts-1", "my.facts-2", "my.facts-3"]


def test_lists_in_messages_are_cut(tmp_path):
    header = ";".join(f"column {i}" for i in range(35))
    message = refused(tmp_path / "f.csv", f"{header}\n{';' * 34}\nx{';' * 34}\n")
    assert "column 9 and 25 more." in message


def test_a_subject_in_another_normal_form_is_found(tmp_path):
    composed, decomposed = "Zu\u0308rich".replace("u\u0308", "\u00fc"), "Zu\u0308rich"
    for prompt, subject in [(composed, decomposed), (decomposed, composed)]:
        (case,), _ = read(
            tmp_path / "f.csv", f"prompt,target,subject\n{prompt} lies in,Peru,{subject}\n"
        )
        assert case.fact.subject == prompt and case.fact.prompt == f"{prompt} lies in"
    with pytest.raises(FactError, match=r"the prompt has U\+00A0 .* where the subject has U\+0020"):
        Fact("a", "New\u00a0York is in", "Peru", "New York")


def test_a_table_of_one_form_is_read_alike_by_its_delimiter(tmp_path):
    # a comma in a header of semicolons, and the other way round
    for separator in ",;":
        (case, _), _ = read(tmp_path / "f.csv", delimited(separator))
        assert case.fact.target == "Zürich"


def test_a_title_above_the_header_is_named(tmp_path):
    title = "Facts for the release"
    for text in (f"{title},,\nprompt,target,x\nA is,b,c\n", f"{title}\n\nprompt,target\nA is,b\n"):
        said = refused(tmp_path / "facts.csv", text)
        assert f"{title!r}. If that is a title, take it out" in said
    assert f"{title!r}. If that is a title" in refused(
        workbook(tmp_path / "facts.xlsx", [[title], ["prompt"]])
    )


def test_separators_at_the_end_of_a_line_and_line_ends_in_names_do_no_harm(tmp_path):
    text = '"Target\n(new)",prompt\nb,A is,\nd,C is,,\n'
    cases, _ = read(tmp_path / "facts.csv", text, target="target (new)")
    assert [case.fact.target for case in cases] == ["b", "d"]


@pytest.mark.parametrize("way", ["columns", "index", "split"])
def test_a_table_that_pandas_wrote_by_column_is_refused_in_plain_words(tmp_path, way):
    path = tmp_path / "facts.json"
    pandas.DataFrame(CAPITALS).to_json(path, orient=way)
    assert f"to_json(orient={way!r}) writes it. Write a list" in refused(path)


def _format_far_away(book):
    book.active.cell(1_000_000, 3).number_format = "0.00"
    book.active.cell(2, 16_000).number_format = "0.00"


def test_a_sheet_with_formatted_cells_far_away_is_read(tmp_path):
    cases, _ = read(workbook(tmp_path / "facts.xlsx", SHEET, _format_far_away))
    assert len(cases) == 3


def _euros(book):
    book.active["C2"].number_format = "#,##0.00 €"


def test_a_note_is_what_its_cell_stores(tmp_path):
    rows = [["prompt", "target", "cost"], ["A is", "b", 99.5]]
    (case,), _ = read(workbook(tmp_path / "facts.xlsx", rows, _euros))
    assert case.notes == {"cost": 99.5}
