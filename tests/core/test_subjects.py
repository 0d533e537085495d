"""The subject of a fact: given, or found by rule, with a word where the rule is weak."""

import pytest

from editbench.subjects import find_subject
from editbench.types import Fact

PLAIN = [
    ("The capital of Australia is", "Australia"),
    ("Who wrote Winter Glass?", "Winter Glass"),
    ("What is the capital of the United States of America?", "United States of America"),
    ("Danielle Darrieux's mother tongue is", "Danielle Darrieux"),
    ("Toko Yasuda, the instrument she plays is the", "Toko Yasuda"),
    ('The song "Winter in the Old Harbour" was sung by Mara', "Winter in the Old Harbour"),
    ("In Malmö, the river is called", "Malmö"),
    # other languages
    ("La capitale de la France est", "France"),
    ("L'auteur de Hamlet est", "Hamlet"),
    ("L’Oréal a été fondée par", "Oréal"),
    ("Quel est l'auteur de L'Étranger ?", "Étranger"),
    ("El autor de Don Quijote es", "Don Quijote"),
    ("¿Cuál es la capital de Francia?", "Francia"),
    ("Wer schrieb „Die Blechtrommel“?", "Die Blechtrommel"),
    ("Wer schrieb »Die Blechtrommel«?", "Die Blechtrommel"),
    ("L'auteur du livre « Les Misérables » est", "Les Misérables"),
    ("《哈姆雷特》的作者是", "哈姆雷特"),
    ("「雪国」の著者は", "雪国"),
    ("Столица Франции —", "Столица Франции"),
    # names of products, numbers, abbreviations
    ("The iPhone 15 is made by", "iPhone 15"),
    ("eBay was founded by", "eBay"),
    ("Boeing 747 was built by", "Boeing 747"),
    ("3M is based in", "3M"),
    ("50 Cent was born in", "50 Cent"),
    ("Dr. Smith works at", "Dr. Smith"),
    ("Edward J. King writes in", "Edward J. King"),
    ("J.K. Rowling wrote", "J.K. Rowling"),
    ("Martin Luther King Jr. was born in", "Martin Luther King Jr."),
    ("Jonas Brunvoll, Sr. was born in", "Jonas Brunvoll, Sr."),
    ("The founder of Apple Inc. is", "Apple Inc."),
    ("St. Petersburg lies on the", "St. Petersburg"),
    ("What type of ship was USS Kete (SS-369)?", "USS Kete (SS-369)"),
    # words that only open a sentence, dates, and titles that look like such words
    ("I think the capital of France is", "France"),
    ("Since 2013 the capital of the province of Hasketh has been", "Hasketh"),
    ("In May 2020, the president of France was", "France"),
    ("The lead singer of The Who is", "The Who"),
    ('"Who wrote Hamlet?"', "Hamlet"),
]
WEAK = [
    ("the password of the server is", "server", "last word", "the prompt has no name"),
    ("the capital of france is", "france", "last word", "the prompt has no name"),
    ("hamburger is named after", "hamburger", "last word", "the prompt has no name"),
    ("Who wrote it?", "wrote", "last word", "the prompt has no name"),
    ("THE CAPITAL OF FRANCE IS", "FRANCE", "last word", "the prompt has no name"),
    ("日本の首都は", "日本", "last word", "the prompt has no name"),
    ("عاصمة فرنسا هي", "هي", "last word", "the prompt has no name"),
    ("?", "?", "last word", "the prompt has no name"),
    ("Who did Marie Curie marry in Paris?", "Marie Curie", "rule", "one of 2 names"),
    ('"Ja" and "Nein" mean', "Nein", "rule", "one of 2 quotations"),
    (
        "Linguists say that the language is",
        "Linguists",
        "rule",
        "its capital may only open the sentence",
    ),
]


@pytest.mark.parametrize(("prompt", "subject"), PLAIN)
def test_a_subject_found_by_rule(prompt, subject):
    found = find_subject(Fact("x", prompt, "zz"))
    assert (found.text, found.source, found.doubt) == (subject, "rule", "")
    assert prompt[found.start :].startswith(subject)
    given = find_subject(Fact("x", prompt, "zz", subject))
    assert (given.text, given.start, given.source) == (subject, found.start, "given")


@pytest.mark.parametrize(("prompt", "subject", "source", "doubt"), WEAK)
def test_the_rule_says_where_it_is_weak(prompt, subject, source, doubt):
    found = find_subject(Fact("x", prompt, "zz"))
    assert (found.text, found.source, found.doubt) == (subject, source, doubt)
    assert prompt[found.start : found.last + 1] == subject
