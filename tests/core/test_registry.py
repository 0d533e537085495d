"""Names to plug-ins: built in, third-party, clashing, broken."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Optional

import numpy
import pytest
from tiny import editbench

from editbench import registry
from editbench.errors import OptionError, PluginError, UnknownNameError
from editbench.options import parse_option
from editbench.plugin import Corpus, Method

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
from editbench.corpora.local import Local
from editbench.plugin import Method

@dataclass(frozen=True)
class Good(Method):
    name, kind, summary = "good", "trainer", "does nothing"
    def inject(self, model, facts):
        return self.edit(model, facts)

class Unfinished(Method):
    pass

class Forgot(Good):
    name = "forgot"
    about: ClassVar[str] = "no option"
    size: float = 0.05

class Texts(Local):
    summary = "my texts"

class Stranger:
    pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with the given entry points, as pip would."""
    monkeypatch.delenv("EDITBENCH_PLUGINS")
    monkeypatch.syspath_prepend(tmp_path)

    def add(dist, **groups):
        info = tmp_path / f"{dist}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        lines = [f"[editbench.{group}]\n{points}\n" for group, points in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))

    (tmp_path / "strange_plugin.py").write_text(PLUGIN)
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_at_all\n")
    yield add
    for module in ("strange_plugin", "broken_plugin"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("group", ["methods", "corpora", "evaluators"])
def test_every_built_in_loads_and_bears_its_name(group):
    for name in registry.names(group):
        found = registry.get(group, name)
        if group == "methods":
            assert issubclass(found, Method) and found.name == name and found.summary and found.kind
        elif group == "corpora":
            assert issubclass(found, Corpus) and found.summary and found.license
    assert set(registry.baselines()) <= set(registry.names("methods"))


def test_names_imports_no_plug_in(install):
    install("mine", methods="good = strange_plugin:Good")
    assert "good" in registry.names("methods") and "strange_plugin" not in sys.modules
    assert (
        registry.get("methods", "good").summary == "does nothing"
        and "strange_plugin" in sys.modules
    )


@pytest.mark.parametrize(("group", "kind"), [("methods", "method"), ("corpora", "corpus")])
def test_an_unknown_name_gets_suggestions(group, kind):
    wrong = registry.names(group)[0][:-1] + "x"
    with pytest.raises(UnknownNameError) as error:
        registry.get(group, wrong)
    text = str(error.value)
    assert (
        f"Unknown {kind} {wrong!r}. Did you mean" in text
        and f"See 'editbench list {group}'." in text
    )
    assert "Installed" not in text, "a near name says enough"
    with pytest.raises(UnknownNameError, match=f"Unknown {kind} 'qqqq'. Installed: "):
        registry.get(group, "qqqq")


def test_options_of_a_class_that_is_no_dataclass_are_not_lost_silently(install):
    install("mine", methods="forgot = strange_plugin:Forgot\ngood = strange_plugin:Good")
    lost = (
        "class Forgot declares size and is no dataclass, so these are no options; "
        "write @dataclass(frozen=True) above it"
    )
    with pytest.raises(PluginError, match=re.escape(lost)):
        registry.get("methods", "forgot")
    forgot = sys.modules["strange_plugin"].Forgot
    with pytest.raises(PluginError, match=re.escape(f"Method 'forgot' cannot be used: {lost}.")):
        forgot.from_options("forgot", {})
    assert registry.get("methods", "good").from_options("good", {"seed": 1}).seed == 1


def test_a_slip_of_the_fingers_gets_the_name_with_these_letters_and_a_short_list():
    with pytest.raises(UnknownNameError) as error:
        registry.get("methods", "mimet")
    text = str(error.value)
    assert "Did you mean 'memit' or " in text and "easyedit-" not in text
    assert f"{len(registry.easyedit())} more run EasyEdit. See 'editbench list methods'." in text
    with pytest.raises(UnknownNameError, match="Did you mean 'easyedit-wise'"):
        registry.get("methods", "easyedit-wsie")


def test_a_clash_names_both(install):
    install("fast-rome", methods="rome = strange_plugin:Good")
    for ask in (lambda: registry.names("methods"), lambda: registry.get("methods", "sft")):
        with pytest.raises(PluginError) as error:
            ask()
        text = str(error.value)
        assert "'rome' is provided twice" in text and "fast-rome 1.2 (strange_plugin:Good)" in text
        assert "editbench (editbench.methods.rome:Rome)" in text
    assert registry.names("corpora")
    said = editbench("list", "methods")
    assert said.code == 2 and "fast-rome 1.2" in said.err and "Traceback" not in said.err


def test_two_plug_ins_clash_too(install):
    install("one", methods="new = strange_plugin:Good")
    install("two", methods="new = strange_plugin:Good")
    with pytest.raises(PluginError, match=r"by (one|two) 1\.2 .* and by (one|two) 1\.2"):
        registry.names("methods")


def test_none_leaves_plug_ins_out(install, monkeypatch):
    install("fast-rome", methods="rome = strange_plugin:Good\nnew = strange_plugin:Good")
    monkeypatch.setenv("EDITBENCH_PLUGINS", "none")
    assert registry.get("methods", "rome").__module__ == "editbench.methods.rome"
    assert "new" not in registry.names("methods")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            "new = broken_plugin:Good",
            "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        ),
        ("new = no_such_plugin:Good", "No module named 'no_such_plugin'"),
        ("new = strange_plugin:Missing", "has no attribute 'Missing'"),
        ("new = strange_plugin:Stranger", "it is not a subclass of editbench.plugin.Method"),
        ("new = strange_plugin:Texts", "it is not a subclass of editbench.plugin.Method"),
        ("new = strange_plugin:Unfinished", "it does not define inject"),
    ],
)
def test_a_broken_plug_in_harms_only_those_who_ask_for_it(install, entry, reason):
    install("mine", methods=entry)
    with pytest.raises(PluginError) as error:
        registry.get("methods", "new")
    assert "'new'" in str(error.value) and reason in str(error.value)
    assert registry.get("methods", "sft").name == "sft"

    said = editbench("list", "methods")
    assert said.code == 0 and "new" in said.out and "BROKEN" in said.out and "sft" in said.out
    asked = editbench("compare", "--methods", "new", "--model", "nowhere")
    assert asked.code == 2 and reason in asked.err and "Traceback" not in asked.err


def test_a_broken_corpus_is_listed_as_broken(install):
    install("mine", corpora="new = broken_plugin:Texts\nmine = strange_plugin:Texts")
    said = editbench("list", "corpora")
    assert said.code == 0 and "BROKEN" in said.out and "my texts" in said.out


@pytest.mark.parametrize("name", ["My_Method", "a/b", "a b"])
def test_a_name_that_no_path_can_bear_is_refused(install, name):
    install("mine", methods=f"{name} = strange_plugin:Good")
    with pytest.raises(PluginError, match="lower-case letters, digits and hyphens"):
        registry.get("methods", name)
    assert editbench("list", "methods").code == 0


def test_a_failing_built_in_shows_its_own_error(monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "gone", "editbench.methods.gone:Gone")
    with pytest.raises(ModuleNotFoundError):
        registry.get("methods", "gone")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        (" 3 ", int, 3),
        ("1e-3", float, 1e-3),
        ("3", float, 3.0),
        ("yes", bool, True),
        ("0", bool, False),
        ("none", int | None, None),
        ("auto", Optional[float], None),  # noqa: UP045 - plug-ins may write it so
        ("4", Optional[int], 4),  # noqa: UP045
        ("4", int | None, 4),
        ("a b", str, "a b"),
        ("none", str | None, None),
        ("1,2", tuple[int, ...], (1, 2)),
        ("3-5", tuple[int, ...], (3, 4, 5)),
        ("3-5", tuple[int, ...] | None, (3, 4, 5)),
        ("-1", tuple[int, ...], (-1,)),
        ("0.5,1", tuple[float, ...], (0.5, 1.0)),
        ("a, b", tuple[str, ...], ("a", "b")),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, "a"], tuple[int, str], (1, "a")),
        (7, int, 7),
        (numpy.int64(7), int, 7),
        (numpy.float32(0.5), float | None, 0.5),
    ],
)
def test_texts_become_options(text, kind, value):
    found = parse_option(text, kind)
    assert found == value and type(found) is type(value)


def test_values_that_are_no_texts_fit_their_option_too():
    memit = registry.get("methods", "memit")
    assert memit.from_options("memit", {"layers": 1}).layers == (1,)
    assert memit.from_options("memit", {"layers": [1, 2]}).layers == (1, 2)
    assert (
        memit.from_options("memit", {"steps": 20.0}).steps == 20
        and memit.from_options("memit", {"lam": 20}).lam == 20
    )
    assert memit.from_options("memit", {"prefixes": False}).prefixes == 0
    for options in ({"layers": 0.5}, {"layers": True}, {"layers": ["a"]}, {"covariance": 5}):
        with pytest.raises(OptionError, match="Bad option for memit: .*: it is "):
            memit.from_options("memit", options)
    with pytest.raises(OptionError, match="steps=20.5: 20.5 is not a whole number"):
        memit.from_options("memit", {"steps": 20.5})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "abc"}, "size=abc: 'abc' is not a whole number"),
        ({"size": "1.5"}, "size=1.5: '1.5' is not a whole number"),
        ({"size": ""}, "size="),
        ({"rate": "fast"}, "rate=fast: 'fast' is not a number"),
        ({"rate": "nan"}, "rate=nan: 'nan' is not finite"),
        ({"rate": "inf"}, "rate=inf: 'inf' is not finite"),
        ({"on": "maybe"}, "on=maybe: 'maybe' is neither true nor false"),
        ({"layers": "1,,2"}, "layers=1,,2: '' is not a whole number"),
        ({"layers": "1-2-3"}, "layers=1-2-3"),
        ({"size": "0"}, "size must be at least 1"),
        ({"lambda": "1"}, "has no option 'lam'"),
        (
            {"sise": "1"},
            "has no option 'sise'. Did you mean 'size'? Its options: layers, on, rate, seed, size",
        ),
        ({"seed": "-1"}, "Seed -1 is not a whole number from 0"),
        ({"seed": str(2**32)}, "Seed 4294967296"),
        ({"seed": None}, "seed=None: it is None, not int"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options, said):
    with pytest.raises(OptionError) as error:
        Mine.from_options("mine", options)
    assert said in str(error.value) and ("mine" in str(error.value) or "Seed" in str(error.value))


def test_what_a_plugin_counts_is_not_known_unless_it_says_so():
    assert Mine.from_options("mine", {"size": 10**9, "tokens": 5}).size == 10**9
    with pytest.raises(OptionError, match="tokens=1000: it must be at most 999"):
        Mine.from_options("mine", {"tokens": 1000})


@dataclass(frozen=True)
class Mine(Method):
    limits = {"tokens": 999}

    size: int = 1
    tokens: int = 1
    rate: float = 0.5
    on: bool = False
    layers: tuple[int, ...] = (1,)

    def __post_init__(self):
        if self.size < 1:
            raise ValueError("size must be at least 1")

    def inject(self, model, facts):
        return self.edit(model, facts)


@dataclass(frozen=True)
class Cook(Method):
    """A method with recipes."""

    name: ClassVar[str] = "cook"
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"lambda": 3.0, "layers": (1, 2)},
        "fast": {"lambda": 9.0},
        "exact": {"rate": 2.0},
    }
    alternatives: ClassVar[Mapping[str, str]] = {"rate": "lam"}

    lam: float = 1.0
    rate: float | None = None
    layers: tuple[int, ...] | None = None

    def inject(self, model, facts):
        return self.edit(model, facts)


@dataclass(frozen=True)
class Chef(Cook):
    """A method whose option is called recipe."""

    name: ClassVar[str] = "chef"
    recipe: str = "soup"


def test_a_recipe_is_written_out_and_options_given_besides_win():
    assert Cook.from_options("cook", {"recipe": "paper"}) == Cook(lam=3.0, layers=(1, 2))
    assert Cook.from_options("cook", {"recipe": "paper", "lam": "4"}) == Cook(
        lam=4.0, layers=(1, 2)
    )
    assert Cook.from_options("cook", {"lambda": 4, "recipe": "fast", "seed": 2}) == Cook(
        seed=2, lam=4.0
    )
    assert Cook.from_options("cook", {"recipe": "none"}) == Cook()
    assert Cook.from_options("cook", {"recipe": "exact"}) == Cook(rate=2.0)
    assert Cook.from_options("cook", {"recipe": "exact", "lambda": 4}) == Cook(lam=4.0)
    assert "recipe" not in Cook.from_options("cook", {"recipe": "paper"}).options()
    assert Chef.from_options("chef", {"recipe": "paper"}) == Chef(recipe="paper")


@pytest.mark.parametrize(
    ("kind", "recipe", "said"),
    [
        (Cook, "papr", "Method 'cook' has no recipe 'papr'. Its recipes: paper, fast, exact."),
        (Cook, ["paper"], "Method 'cook' has no recipe .*Its recipes: paper, fast, exact."),
        (Mine, "paper", "Method 'mine' has no recipes. Leave recipe out."),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(kind, recipe, said):
    with pytest.raises(OptionError, match=said):
        kind.from_options("mine" if kind is Mine else "cook", {"recipe": recipe})


def test_the_options_of_a_recipe_are_recognized():
    assert Cook(seed=7, lam=3.0, layers=(1, 2)).recipe_name() == "paper"
    assert Cook(lam=9.0).recipe_name() == "fast"
    assert Cook().recipe_name() is None and Cook(lam=3.0).recipe_name() is None


def test_a_misspelt_recipe_is_hinted_at_where_there_are_some():
    with pytest.raises(OptionError, match="no option 'recipes'. Did you mean 'recipe'?"):
        Cook.from_options("cook", {"recipes": "paper"})
    with pytest.raises(OptionError) as error:
        Mine.from_options("mine", {"recipes": "paper"})
    assert "recipe'?" not in str(error.value)


@pytest.mark.parametrize(
    ("group", "attributes"),
    [
        ("methods", ("kind", "needs_subject", "needs_covariance", "paper", "summary")),
        ("corpora", ("form", "needs_data", "license", "summary")),
    ],
)
def test_what_is_read_of_a_class_is_what_the_class_says(group, attributes):
    names = [*registry.names(group), *(registry.easyedit() if group == "methods" else [])]
    for name in names:
        plugin = registry.get(group, name)
        says = {attribute: getattr(plugin, attribute) for attribute in attributes}
        assert registry.about(group, name, attributes) == says, name
