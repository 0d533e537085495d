"""Write the data of the bundled retention tasks: ``python -m editbench.eval.build_tasks``.

Everything here was written for this project. The output is the same, byte for byte, on every
machine: each task draws from a generator seeded by its name. Rows are dealt in turn over their
kinds, so that any prefix is a fair sample. Reordering or adding a draw changes every later item of
that task.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from editbench.eval import build_skills

DATA = Path(__file__).parent / "tasks" / "data"
Row = dict[str, object]


def build() -> dict[str, list[Row]]:
    """Return the rows of every task, in the order in which they are asked."""
    makers: dict[str, Callable[[random.Random], Iterable[Row]]] = {
        "eb_grammar": grammar,
        "eb_knowledge": knowledge,
        "eb_reading": reading,
        "eb_instruct": instruct,
        "eb_arithmetic": arithmetic,
        "eb_completion": completion,
        "eb_reasoning": build_skills.reasoning,
        "eb_toolcall": build_skills.toolcall,
    }
    return {name: _deal(name, make(random.Random(name))) for name, make in makers.items()}


def encode(rows: Iterable[Row]) -> str:
    """Return the rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write ``tasks/data/*.jsonl``."""
    DATA.mkdir(parents=True, exist_ok=True)
    for name, rows in build().items():
        (DATA / f"{name}.jsonl").write_text(encode(rows), encoding="utf-8")
        print(f"{name}: {len(rows)} items")


def _deal(name: str, rows: Iterable[Row]) -> list[Row]:
    """Drop repeated items, shuffle each kind, deal the kinds in turn, and number the rows."""
    rng = random.Random(name + "/order")
    kinds: dict[str, list[Row]] = {}
    seen: set[str] = set()
    for row in rows:
        choices = row.get("choices", ())
        assert isinstance(choices, list | tuple)
        # Sorted, since two items with shuffled choices are the same item.
        key = json.dumps([row.get("prompt"), sorted(choices)])
        if key not in seen:
            seen.add(key)
            kinds.setdefault(str(row["kind"]), []).append(row)
    for group in kinds.values():
        rng.shuffle(group)
    longest = max(map(len, kinds.values()))
    dealt = []
    for turn in range(longest):
        # A kind with few items is spread over all turns, instead of being used up at the start.
        due = [
            g[turn * len(g) // longest]
            for g in kinds.values()
            if turn == 0 or turn * len(g) // longest > (turn - 1) * len(g) // longest
        ]
        rng.shuffle(due)
        dealt += due
    return [{"id": f"{name[3:]}-{i:03d}", **row} for i, row in enumerate(dealt)]


def _choice_row(
    rng: random.Random, kind: str, prompt: str, right: str, wrong: Iterable[str]
) -> Row:
    choices = [right, *wrong]
    # The place of the right choice must tell nothing.
    rng.shuffle(choices)
    return {"kind": kind, "prompt": prompt, "choices": choices, "gold": choices.index(right)}


# eb_grammar: a sentence and the same sentence with one mistake.

MEN = "Paul John Tom Peter Mark Henry Daniel George Kevin Victor".split()
WOMEN = "Mary Anna Susan Laura Helen Emma Julia Karen Alice Diane".split()
PERSONS = (
    "farmer teacher doctor singer driver writer baker soldier lawyer painter student waiter".split()
)
THINGS = "book table bottle chair lamp picture basket window blanket hammer pencil guitar".split()
PLACES = "kitchen garden market office river station bridge school library hotel".split()
PAST = [  # past tense, past participle, what follows
    ("ate", "eaten", "the apple"),
    ("wrote", "written", "a letter"),
    ("took", "taken", "the money"),
    ("saw", "seen", "the movie"),
    ("broke", "broken", "the window"),
    ("drove", "driven", "the truck"),
    ("gave", "given", "a speech"),
    ("chose", "chosen", "a gift"),
    ("drank", "drunk", "the milk"),
    ("forgot", "forgotten", "the name"),
    ("stole", "stolen", "the car"),
    ("knew", "known", "the answer"),
]
VERBS = [  # past tense, base form, participle, object
    ("opened", "open", "opened", "door"),
    ("cleaned", "clean", "cleaned", "room"),
    ("painted", "paint", "painted", "wall"),
    ("repaired", "repair", "repaired", "roof"),
    ("wrote", "write", "written", "report"),
    ("found", "find", "found", "wallet"),
    ("built", "build", "built", "house"),
    ("sold", "sell", "sold", "boat"),
    ("hid", "hide", "hidden", "letter"),
    ("caught", "catch", "caught", "thief"),
    ("baked", "bake", "baked", "bread"),
    ("washed", "wash", "washed", "car"),
]
INFINITIVE = ["decided", "wanted", "hoped", "refused", "promised", "agreed", "planned", "expected"]
GERUND = [
    "enjoyed",
    "avoided",
    "finished",
    "kept",
    "suggested",
    "admitted",
    "practiced",
    "dislikes",
]
ACTIONS = [
    ("play", "playing", "the piano"),
    ("buy", "buying", "old books"),
    ("visit", "visiting", "the museum"),
    ("cook", "cooking", "dinner"),
    ("sell", "selling", "the house"),
    ("write", "writing", "long letters"),
    ("paint", "painting", "the fence"),
    ("drive", "driving", "at night"),
]
COLLOCATIONS = [
    ("is interested", "in", "at", "music"),
    ("is afraid", "of", "from", "spiders"),
    ("depends", "on", "of", "the weather"),
    ("listens", "to", "at", "the radio"),
    ("waits", "for", "to", "the bus"),
    ("is famous", "for", "to", "its cheese"),
    ("belongs", "to", "for", "my uncle"),
    ("is good", "at", "on", "chess"),
    ("looks", "for", "of", "a new job"),
    ("believes", "in", "on", "luck"),
    ("agrees", "with", "at", "his wife"),
    ("is full", "of", "with", "water"),
    ("is proud", "of", "on", "her son"),
    ("suffers", "from", "of", "headaches"),
    ("is married", "to", "of", "a nurse"),
    ("consists", "of", "by", "three parts"),
    ("laughed", "at", "to", "the joke"),
    ("is tired", "of", "from the", "waiting"),
]
COUNTABLE = "apples chairs friends books letters houses questions trees".split()
MASS = "water money sugar rice furniture milk traffic homework".split()
ADJECTIVES = [
    ("tall", "taller"),
    ("cheap", "cheaper"),
    ("heavy", "heavier"),
    ("fast", "faster"),
    ("old", "older"),
    ("clean", "cleaner"),
]
LONG_ADJECTIVES = [
    ("expensive", "expensiver"),
    ("beautiful", "beautifuler"),
    ("dangerous", "dangerouser"),
    ("comfortable", "comfortabler"),
    ("difficult", "difficulter"),
    ("important", "importanter"),
]


def grammar(rng: random.Random) -> Iterable[Row]:
    """Yield 16 minimal pairs for each of 16 phenomena. The whole sentence is scored."""
    for kind, pair in GRAMMAR.items():
        made: set[tuple[str, str]] = set()
        while len(made) < 16:
            good, bad = pair(rng)
            if (good, bad) not in made:
                made.add((good, bad))
                yield _choice_row(rng, kind, "", good, [bad])


def _swap(frame: str, good: str, bad: str) -> tuple[str, str]:
    """Return ``frame`` with ``good`` and with ``bad`` in place of its *."""
    return frame.replace("*", good), frame.replace("*", bad)


def _agreement(r: random.Random) -> tuple[str, str]:
    verb = r.choice(["walk", "work", "stop", "sing", "talk", "wait"])
    place, noun = r.choice(PLACES), r.choice(PERSONS)
    if r.random() < 0.5:
        return _swap(f"The {noun} * near the {place} every day.", verb + "s", verb)
    return _swap(f"The {noun}s * near the {place} every day.", verb, verb + "s")


def _attractor(r: random.Random) -> tuple[str, str]:
    a, b, p = r.choice(THINGS), r.choice(PERSONS), r.choice(PLACES)
    if r.random() < 0.5:
        return _swap(f"The {a}s of the {b} * in the {p}.", "are", "is")
    return _swap(f"The {a} of the {b}s * in the {p}.", "is", "are")


def _relative(r: random.Random) -> tuple[str, str]:
    a, b = r.sample(PERSONS, 2)
    if r.random() < 0.5:
        return _swap(f"The {a} who helped the {b}s * very kind.", "was", "were")
    return _swap(f"The {a}s who helped the {b} * very kind.", "were", "was")


def _reflexive_gender(r: random.Random) -> tuple[str, str]:
    forms, names = r.choice([(("himself", "herself"), MEN), (("herself", "himself"), WOMEN)])
    return _swap(
        f"{r.choice(names)} {r.choice(['hurt', 'blamed', 'introduced', 'saw', 'taught'])} *"
        f"{r.choice([' yesterday', ' again', ''])}.",
        *forms,
    )


def _reflexive_number(r: random.Random) -> tuple[str, str]:
    verb, noun = r.choice(["hurt", "blamed", "introduced", "protected"]), r.choice(PERSONS)
    return _swap(f"The {noun}s {verb} *.", "themselves", r.choice(["herself", "himself"]))


def _determiner(r: random.Random) -> tuple[str, str]:
    noun, place, man = r.choice(THINGS), r.choice(PLACES), r.choice(MEN + WOMEN)
    if r.random() < 0.5:
        return _swap(
            f"{man} left {r.choice(['these', 'those'])} * in the {place}.", noun + "s", noun
        )
    return _swap(f"{man} left {r.choice(['this', 'that'])} * in the {place}.", noun, noun + "s")


def _participle(r: random.Random) -> tuple[str, str]:
    past, participle, rest = r.choice(PAST)
    if r.random() < 0.5:
        return _swap(f"{r.choice(MEN + WOMEN)} has already * {rest}.", participle, past)
    return _swap(f"{r.choice(MEN + WOMEN)} * {rest} yesterday.", past, participle)


def _question_order(r: random.Random) -> tuple[str, str]:
    who, place = r.choice(MEN + WOMEN), r.choice(PLACES)
    frame = r.choice(["I know where * ", "Nobody told us why * ", "She asked me when * "])
    verb = r.choice(["going", "working", "waiting"])
    tail = f"{verb} " + ("to" if verb == "going" else "at") + f" the {place}."
    return frame.replace("*", f"{who} was") + tail, frame.replace("*", f"was {who}") + tail


def _polarity(r: random.Random) -> tuple[str, str]:
    tail = r.choice(["has ever visited the", "has ever been to the", "has any friends at the"])
    return _swap(
        f"* {r.choice(PERSONS)} {tail} {r.choice(PLACES)}.",
        "No",
        r.choice(["Some", "Every", "This"]),
    )


def _case(r: random.Random) -> tuple[str, str]:
    who, verb, thing = (
        r.choice(MEN + WOMEN),
        r.choice(["gave", "showed", "sent", "sold"]),
        r.choice(THINGS),
    )
    good, bad = r.choice(
        [("me", "I"), ("him", "he"), ("us", "we"), ("them", "they"), ("her", "she")]
    )
    # The object form is right at the end of the sentence, the subject form at its start.
    if r.random() < 0.5:
        return _swap(f"{who} {verb} the {thing} to *.", good, bad)
    return _swap(f"* {verb} the {thing} to {who}.", bad.capitalize(), good.capitalize())


def _article(r: random.Random) -> tuple[str, str]:
    word = r.choice(
        (
            "apple orange egg umbrella engine island elephant onion "
            "banana dog carrot table pencil lion"
        ).split()
    )
    good, bad = ("an", "a") if word[0] in "aeiou" else ("a", "an")
    return _swap(
        f"{r.choice(MEN + WOMEN)} {r.choice(['saw', 'found', 'drew', 'wanted'])} * {word}.",
        good,
        bad,
    )


def _complement(r: random.Random) -> tuple[str, str]:
    base, gerund, rest = r.choice(ACTIONS)
    if r.random() < 0.5:
        return _swap(
            f"{r.choice(MEN + WOMEN)} {r.choice(INFINITIVE)} * {rest}.", "to " + base, gerund
        )
    return _swap(f"{r.choice(MEN + WOMEN)} {r.choice(GERUND)} * {rest}.", gerund, "to " + base)


def _comparative(r: random.Random) -> tuple[str, str]:
    a, b = r.sample(THINGS, 2)
    if r.random() < 0.5:
        base, short = r.choice(ADJECTIVES)
        return _swap(f"This {a} is * than that {b}.", short, r.choice(["more " + short, base]))
    base, wrong = r.choice(LONG_ADJECTIVES)
    return _swap(f"This {a} is * than that {b}.", "more " + base, r.choice([wrong, "most " + base]))


def _quantity(r: random.Random) -> tuple[str, str]:
    who, place = r.choice(MEN + WOMEN), r.choice(PLACES)
    if r.random() < 0.5:
        return _swap(f"{who} did not see * {r.choice(MASS)} in the {place}.", "much", "many")
    return _swap(f"{who} did not see * {r.choice(COUNTABLE)} in the {place}.", "many", "much")


def _passive(r: random.Random) -> tuple[str, str]:
    past, base, participle, noun = r.choice(VERBS)
    return _swap(f"The {noun} was * by the {r.choice(PERSONS)}.", participle, base)


def _preposition(r: random.Random) -> tuple[str, str]:
    head, good, bad, tail = r.choice(COLLOCATIONS)
    subject = (
        r.choice(["It", "This village"])
        if tail == "its cheese"
        else r.choice(["He", "She", "My friend", "The man"])
    )
    # These predicates need a thing as their subject, not a person.
    if head in ("depends", "belongs", "is full", "consists"):
        subject = r.choice(["It", "Everything here", "The old box"])
    return _swap(f"{subject} {head} * {tail}.", good, bad)


GRAMMAR: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "agreement": _agreement,
    "attractor": _attractor,
    "relative-clause": _relative,
    "reflexive-gender": _reflexive_gender,
    "reflexive-number": _reflexive_number,
    "determiner": _determiner,
    "participle": _participle,
    "question-order": _question_order,
    "polarity": _polarity,
    "case": _case,
    "article": _article,
    "complement": _complement,
    "comparative": _comparative,
    "quantity": _quantity,
    "passive": _passive,
    "preposition": _preposition,
}


# eb_knowledge: everyday knowledge, one word to choose out of four.

# kind -> stem (* is the item) -> pairs "item=answer". Wrong choices are answers to other items of
# the kind. Answers that would be nearly right are barred after a "!" ("item=answer!no,no"). A stem
# without an item may list its wrong choices after a "|" ("=answer|wrong,wrong,wrong").
KNOWLEDGE = {
    "opposite": {
        "The opposite of * is": "hot=cold big=small!short,thin,low fast=slow happy=sad wet=dry "
        "hard=soft!easy heavy=light "
        "early=late "
        "full=empty "
        "rich=poor strong=weak!soft old=young loud=quiet!soft clean=dirty!messy "
        "tall=short!small,low "
        "thick=thin easy=difficult!hard true=false "
        "open=closed narrow=wide cheap=expensive brave=afraid sharp=blunt deep=shallow!low "
        "sweet=sour!bitter "
        "near=far safe=dangerous smooth=rough asleep=awake ugly=beautiful alive=dead",
    },
    "color": {
        "The color of * is": "grass=green snow=white blood=red chocolate=brown!black milk=white "
        "lemons=yellow!green",
        "The color of a * is": "fire_engine=red!yellow carrot=orange polar_bear=white "
        "flamingo=pink!orange,red,white "
        "crow=black frog_in_a_pond=green!brown ripe_strawberry=red clear_daytime_sky=blue "
        "pumpkin=orange!yellow,green "
        "tree_trunk=brown!gray,black,green,white sunflower=yellow!brown,orange,black,green",
    },
    "body": {
        "People * with their": (
            "see=eyes hear=ears smell=nose chew=teeth!mouth,tongue think=brain "
            "breathe=lungs!nose,mouth "
            "taste=tongue!mouth kick=feet!legs,knee"
        ),
        "A person wears a * around the": "scarf=neck belt=waist watch=wrist necklace=neck!",
        "Socks are worn on the": "=feet!legs",
        "Gloves are worn on the": "=hands!fingers",
        "A hat is worn on the": "=head",
        "The organ that pumps blood is the": "=heart",
        "The arm bends in the middle at the": "=elbow",
        "The leg bends in the middle at the": "=knee!knees",
        "The hand is joined to the arm at the": "=wrist!elbow",
        "The foot is joined to the leg at the": "=ankle!knee",
    },
    "young": {
        "A young * is called a": "dog=puppy cat=kitten cow=calf horse=foal sheep=lamb "
        "chicken=chick frog=tadpole "
        "lion=cub!kitten "
        "duck=duckling!chick "
        "goat=kid pig=piglet deer=fawn!calf kangaroo=joey bear=cub!kid goose=gosling!chick "
        "swan=cygnet!chick",
    },
    "sound": {
        "When it makes a noise, a *": "dog=barks!growls,howls cat=meows duck=quacks "
        "sheep=bleats!baas horse=neighs "
        "lion=roars!growls "
        "bee=buzzes snake=hisses "
        "owl=hoots wolf=howls!growls,barks rooster=crows mouse=squeaks!hisses pigeon=coos",
    },
    "home": {
        "A * lives in a": "bee=hive!nest spider=web!hole bird=nest bear=cave!den "
        "rabbit=burrow!hole,den goldfish=bowl!tank "
        "king=palace!tent monk=monastery "
        "horse=stable soldier=barracks!tent prisoner=cell!cave",
    },
    "tool": {
        "To *, use the": "drive_in_a_nail=hammer dig_a_hole=shovel!spoon "
        "sweep_the_floor=broom!brush cut_wood=saw!knife "
        "cut_bread=knife!saw "
        "look_at_the_stars=telescope!camera look_at_tiny_cells=microscope "
        "take_a_photo=camera!telescope "
        "turn_a_screw=screwdriver!wrench,knife "
        "measure_temperature=thermometer draw_a_straight_line=ruler!pencil open_a_locked_door=key "
        "stay_dry_in_the_rain=umbrella!tent "
        "tidy_your_hair=comb!brush clean_your_teeth=toothbrush!brush sew_clothes=needle "
        "fry_an_egg=pan!spoon,pot boil_water_for_tea=kettle!pan "
        "find_north=compass eat_soup=spoon!fork sleep_in_the_forest=tent water_the_garden=hose "
        "call_a_friend=telephone dry_your_wet_hands=towel "
        "light_a_dark_room=lamp carry_shopping=bag!basket climb_onto_the_roof=ladder "
        "weigh_flour=scale!spoon "
        "cross_a_river=boat!ladder",
    },
    "day": {
        "The day after * is": (
            "Monday=Tuesday Wednesday=Thursday Friday=Saturday Saturday=Sunday Sunday=Monday "
            "Thursday=Friday Tuesday=Wednesday"
        ),
        "The day before * is": "Wednesday=Tuesday Sunday=Saturday Friday=Thursday",
    },
    "month": {
        "The month after * is": (
            "January=February March=April May=June July=August October=November November=December "
            "August=September December=January"
        ),
        "The month before * is": "May=April July=June October=September March=February",
    },
    "season": {
        "The season after winter is": "=spring|summer,autumn,night",
        "The season after spring is": "=summer|autumn,winter,morning",
        "The season after summer is": "=autumn|winter,spring,evening",
        "The coldest season is": "=winter|spring,summer,autumn",
        "The hottest season is": "=summer|spring,winter,autumn",
        "The meal eaten in the morning is called": "=breakfast|dinner,supper,dessert",
        "The meal eaten in the evening is called": "=dinner|breakfast,brunch,milk",
        "The meal eaten in the middle of the day is called": "=lunch|breakfast,supper,midnight",
        "The part of the day after the morning is the": "=afternoon|night,winter,dawn",
    },
    "number": {
        "The number of * is": "days_in_a_week=seven months_in_a_year=twelve legs_on_a_spider=eight "
        "legs_on_an_insect=six "
        "wheels_on_a_bicycle=two "
        "wheels_on_a_tricycle=three sides_of_a_pentagon=five wheels_on_a_car=four!two "
        "sides_of_a_square=four "
        "minutes_in_an_hour=sixty fingers_on_one_hand=five!four "
        "eggs_in_a_dozen=twelve years_in_a_decade=ten years_in_a_century=hundred!two "
        "arms_on_an_octopus=eight "
        "legs_on_a_dog=four "
        "seasons_in_a_year=four!two eyes_on_a_face=two sides_of_a_hexagon=six people_in_a_duet=two "
        "people_in_a_trio=three "
        "toes_on_two_feet=ten wings_on_a_bird=two",
    },
    "material": {
        "* made from": "Bread_is=flour!wheat,eggs,milk,water Cheese_is=milk Wine_is=grapes "
        "Paper_is=wood Glass_is=sand "
        "An_omelet_is=eggs!milk,tomatoes Butter_is=milk!oil Ketchup_is=tomatoes "
        "Raisins_are=grapes Popcorn_is=corn Tofu_is=soybeans Tires_are=rubber Bricks_are=clay!sand "
        "Tables_are_often=wood!glass "
        "Coins_are=metal Candles_are=wax Sweaters_are_often=wool Windows_are=glass!wood "
        "Nails_are=metal!iron,wood Shoes_are_often=leather!rubber "
        "Ice_is=water Yogurt_is=milk",
    },
    "kind": {
        "A * is a kind of": "minnow=fish!animal pansy=flower!plant ferry=ship!vehicle wrench=tool "
        "swing=toy melon=fruit!plant "
        "sparrow=bird rose=flower!plant carrot=vegetable!plant hammer=tool soccer_ball=toy!sport "
        "cobra=snake!reptile,animal bus=vehicle dollar=currency!money mosquito=insect!animal "
        "sedan=car!vehicle "
        "eagle=bird!animal shirt=garment sofa=furniture hurricane=storm cottage=house novel=book",
    },
    "place": {
        "The place where people * is the": "borrow_books=library buy_bread=bakery!market "
        "see_a_doctor=hospital "
        "board_an_airplane=airport "
        "catch_a_train=station "
        "watch_a_new_movie=theater keep_their_money=bank see_lions_and_monkeys=zoo "
        "look_at_old_paintings=museum pray=church!hospital,temple buy_medicine=pharmacy!hospital "
        "mail_a_letter=post_office!bank swim=pool!beach,hotel order_dinner=restaurant!hotel "
        "spend_a_night_on_a_trip=hotel learn_to_read=school!library "
        "lift_weights=gym!school leave_their_car=garage!station,airport,hotel "
        "buy_vegetables=market!farm "
        "grow_crops=farm!zoo "
        "build_sand_castles=beach dock_a_ship=harbor!beach",
    },
    "job": {
        "The person who * is the": "puts_out_fires=firefighter teaches_children=teacher!nurse "
        "flies_a_plane=pilot "
        "bakes_bread=baker!chef,cook treats_teeth=dentist!nurse "
        "treats_sick_animals=vet!nurse,farmer grows_crops=farmer cuts_hair=barber "
        "writes_novels=author "
        "designs_buildings=architect repairs_pipes=plumber "
        "serves_food_at_tables=waiter!chef,baker cooks_in_a_restaurant=chef!baker,waiter "
        "takes_photos=photographer sews_suits=tailor makes_furniture=carpenter "
        "paints_portraits=artist!photographer decides_cases_in_court=judge "
        "arrests_thieves=policeman!judge "
        "cares_for_patients=nurse!dentist,vet catches_fish=fisherman "
        "fights_in_a_war=soldier!pilot,nurse plays_the_piano=musician!artist,teacher",
    },
    "nature": {
        "When water freezes, it becomes": "=ice|steam,sand,oil",
        "When water boils, it becomes": "=steam|ice,oil,sand",
        "When ice melts, it becomes": "=water|steam,snow,stone",
        "Plants grow toward the": "=light|dark,wind,noise",
        "The Earth moves around the": "=sun|moon,clouds,stars",
        "The Moon moves around the": "=Earth|Sun,stars,clouds",
        "To stay alive, people breathe in": "=oxygen|helium,smoke,water",
        "The force that makes an apple fall is": "=gravity|electricity,friction,magnetism",
        "A magnet attracts": "=iron|wood,paper,glass",
        "A caterpillar turns into a": "=butterfly|spider,frog,bird",
        "A tadpole turns into a": "=frog|fish,snake,butterfly",
        "Rain falls from": "=clouds|trees,rocks,rivers",
        "Hot melted rock that flows from a volcano is": "=lava|ice,mud,steam",
        "After the rain, the sun makes a colorful": "=rainbow|shadow,storm,cloud",
        "A cactus grows in the": "=desert|ocean,snow,cave",
        "Fish breathe with their": "=gills|lungs,ears,skin",
        "Birds are covered with": "=feathers|scales,wool,leather",
        "Fish are covered with": "=scales|feathers,fur,wool",
        "A seed in wet soil grows into a": "=plant|rock,bird,cloud",
        "From flowers, hummingbirds drink": "=nectar|milk,leaves,sand",
        "At night, the sky is lit by the": "=moon|sun,rainbow,clouds",
        "In autumn, trees lose their": "=leaves|roots,bark,branches",
        "The sea tastes of": "=salt|sugar,pepper,lemon",
        "The largest animal in the ocean is the": "=whale|shrimp,crab,dolphin",
        "The tallest animal on land is the": "=giraffe|horse,lion,camel",
        "An animal that eats only plants is called a": "=herbivore|carnivore,predator,parasite",
        "Wood floats on water, but it sinks if it is tied to a": "=stone|leaf,feather,balloon",
        "In the sun, ice cream will": "=melt|freeze,grow,burn",
    },
}


def knowledge(rng: random.Random) -> Iterable[Row]:
    """Yield stems of everyday knowledge. Wrong choices are answers to other items of the kind."""
    for kind, stems in KNOWLEDGE.items():
        items = []
        for stem, text in stems.items():
            for item in text.split() if not text.startswith("=") else [text]:
                name, _, answer = item.partition("=")
                answer, _, given = answer.partition("|")
                answer, _, barred = answer.partition("!")
                # "a" becomes "an" before an item that starts with a vowel.
                prompt = re.sub(
                    r"\b([Aa]) (?=[aeiou])", r"\1n ", stem.replace("*", name.replace("_", " "))
                )
                items.append((prompt, answer.replace("_", " "), given, barred.replace("_", " ")))
        # Sorted, because the order of a set of strings differs between processes.
        pool = sorted({answer for _, answer, _, _ in items})
        for prompt, answer, given, barred in items:
            allowed = [
                a
                for a in pool
                if a != answer and a not in barred.split(",") and a not in prompt.split()
            ]
            yield _choice_row(
                rng, kind, prompt, answer, given.split(",") if given else rng.sample(allowed, 3)
            )


# eb_reading: the answer is in the passage.

TOWNS = (
    "Velmora Tarnby Oskelin Brunwick Halverne Pellora Draymoor Suntara Kestrow Lindavar Morvale "
    "Ashenby"
).split()
ANIMALS = "dog cat horse parrot rabbit goat turtle donkey".split()
COLORS = "red blue green yellow black white brown purple".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
JOBS = "nurse baker teacher pilot farmer painter lawyer plumber".split()
FOODS = "soup bread rice cake cheese salad pizza fish".split()
GOODS = "lamp clock carpet vase radio drum kite violin".split()
PASSAGES = [  # passage, then question, how its answer begins, and the slot that ends it
    (
        "{a} lives in {t} and works as a {j}. Every {d}, {a} visits {b}, who has a {c} {n}.",
        [
            ("Where does {a} live?", " {a} lives in", "t"),
            ("What is the job of {a}?", " {a} works as a", "j"),
            ("On which day does {a} visit {b}?", " {a} visits {b} every", "d"),
            ("What animal does {b} have?", " {b} has a {c}", "n"),
        ],
    ),
    (
        "On {d}, {a} bought a {c} {g} at the market in {t}. {b} bought {k} cups there.",
        [
            ("What did {a} buy?", " {a} bought a {c}", "g"),
            ("What color was the {g}?", "", "c"),
            ("How many cups did {b} buy?", "", "k"),
            ("Where is the market?", "", "t"),
        ],
    ),
    (
        "{a} cooked {f} for {k} guests. The party in {t} began on {d} at noon, and {b} arrived "
        "late.",
        [
            ("What did {a} cook?", " {a} cooked", "f"),
            ("How many guests were there?", "", "k"),
            ("Where was the party?", " The party was in", "t"),
            ("When did the party begin?", " The party began on", "d"),
        ],
    ),
    (
        "The old {g} belongs to {a}. It was made in {t} by {b}, a {j} with {k} children.",
        [
            ("Who owns the old {g}?", "", "a"),
            ("Who made the {g}?", " The {g} was made by", "b"),
            ("Where was the {g} made?", " The {g} was made in", "t"),
            ("How many children does {b} have?", " {b} has", "k"),
        ],
    ),
    (
        "{a} lost a {n} near {t}. A {j} found it in a {c} barn on {d} and called {b}.",
        [
            ("What animal did {a} lose?", " {a} lost a", "n"),
            ("What color was the barn?", "", "c"),
            ("Who did the {j} call?", "", "b"),
            ("On which day was the {n} found?", "", "d"),
        ],
    ),
    (
        "The school in {t} has {k} teachers. {a} teaches music there, and {b} paints the walls "
        "{c}.",
        [
            ("How many teachers does the school have?", " The school has", "k"),
            ("Who teaches music?", " Music is taught by", "a"),
            ("What color are the walls?", "", "c"),
            ("Where is the school?", "", "t"),
        ],
    ),
]


def reading(rng: random.Random) -> Iterable[Row]:
    """Yield passages about invented people and towns, each with one question."""
    pools = {"t": TOWNS, "j": JOBS, "d": DAYS, "c": COLORS, "n": ANIMALS, "g": GOODS, "f": FOODS}
    for i, (passage, questions) in enumerate(PASSAGES):
        for question, lead, slot in questions:
            for _ in range(10):
                a, b = rng.sample(MEN + WOMEN, 2)
                fill = {
                    "a": a,
                    "b": b,
                    "k": str(rng.randint(3, 12)),
                    **{key: rng.choice(pool) for key, pool in pools.items()},
                }
                prompt = f"Passage: {passage}\nQuestion: {question}\nAnswer:{lead}".format(**fill)
                yield {"kind": f"passage-{i + 1}-{slot}", "prompt": prompt, "answer": fill[slot]}


# eb_instruct: asked through the chat template, graded by the rules in tasks/checks.py.

TOPICS = [
    "the sea",
    "dogs",
    "winter",
    "music",
    "trees",
    "the moon",
    "bread",
    "friendship",
    "trains",
    "books",
    "rain",
    "gardens",
    "coffee",
    "mountains",
    "sleep",
    "summer",
    "bicycles",
    "birds",
    "cooking",
    "football",
    "the desert",
    "horses",
    "dreams",
    "rivers",
]
WORDS = (
    "river garden window bridge candle forest letter summer kitchen mirror island orange market "
    "shadow "
    "winter bottle ladder pocket "
    "thunder village pencil blanket basket harbor"
).split()
LISTS = [
    "fruits",
    "animals",
    "colors",
    "vegetables",
    "sports",
    "countries",
    "hobbies",
    "tools",
    "drinks",
    "jobs",
    "cities",
    "languages",
    "things in a kitchen",
    "things in a school bag",
    "things to do on a rainy day",
    "farm animals",
    "kinds of music",
    "wild animals",
    "pieces of furniture",
    "things made of wood",
    "reasons to read books",
    "ways to save water",
    "ways to learn a language",
    "gifts for a child",
]
NAMES = MEN + WOMEN + ["Oscar", "Nina", "Clara", "Felix"]
OPENERS = ["Sure", "I think", "In my opinion", "Once upon a time"]


def instruct(rng: random.Random) -> Iterable[Row]:
    """Yield 20 items for each of eleven kinds of instruction."""

    def row(kind: str, prompt: str, n: int = 0, words: Iterable[str] = ()) -> Row:
        return {"kind": kind, "prompt": prompt, "n": n, "words": list(words)}

    for topic in rng.sample(TOPICS, 20):
        n = rng.choice([15, 20, 25])
        yield row(
            "min-words",
            rng.choice(
                [
                    f"Write at least {n} words about {topic}.",
                    f"Tell me about {topic} in at least {n} words.",
                ]
            ),
            n,
        )
    for topic in rng.sample(TOPICS, 20):
        yield row(
            "one-sentence",
            rng.choice(
                [
                    f"Describe {topic} in one sentence.",
                    f"Tell me about {topic} in exactly one sentence.",
                ]
            ),
            6,
        )
    for word in rng.sample(WORDS, 20):
        yield row(
            "keyword",
            rng.choice(
                [
                    f'Write a sentence that uses the word "{word}".',
                    f'Write a sentence with the word "{word}".',
                ]
            ),
            5,
            [word],
        )
    for _ in range(20):
        pair = rng.sample(WORDS, 2)
        yield row(
            "two-keywords",
            f'Write a sentence that contains the words "{pair[0]}" and "{pair[1]}".',
            5,
            pair,
        )
    for topic in rng.sample(TOPICS, 20):
        opener = rng.choice(OPENERS)
        yield row(
            "opening", f'Start your answer with "{opener}". Tell me about {topic}.', 8, [opener]
        )
    for name in rng.sample(NAMES, 20):
        yield row(
            "letter",
            f'Write a short letter about {rng.choice(TOPICS)} that begins with "Dear {name}".',
            12,
            [f"Dear {name}"],
        )
    for things in rng.sample(LISTS, 20):
        n = rng.choice([2, 3, 4])
        yield row(
            "numbered-list",
            f"Give me a numbered list of {['two', 'three', 'four'][n - 2]} {things}. "
            "Keep each item short.",
            n,
        )
    for topic in rng.sample(TOPICS, 20):
        yield row(
            "question",
            rng.choice(
                [
                    f"Write a question about {topic}.",
                    f"Write one question that I could ask a friend about {topic}.",
                ]
            ),
            4,
        )
    for _ in range(20):
        who, place, thing = rng.choice(PERSONS), rng.choice(PLACES), rng.choice(THINGS)
        line = rng.choice(
            [
                f"The {who} left a {thing} in the {place}.",
                f"A {thing} fell on the {who} near the {place}.",
                f"My {thing} is in the {place}.",
            ]
        )
        yield row("repeat", f"Repeat this sentence: {line}", 0, [line])
    for topic in rng.sample(TOPICS, 20):
        word = rng.choice(WORDS)
        yield row(
            "long-keyword",
            f'Write at least 12 words about {topic}. Use the word "{word}".',
            12,
            [word],
        )
    for topic in rng.sample(TOPICS, 20):
        yield row("title", f"Write a title for a story about {topic}. Write only the title.", 10)


# eb_arithmetic and eb_completion

SHOTS = {  # the fixed examples in front of each problem
    "sum": "5 + 4 = 9\n13 + 2 = 15\n7 + 6 = 13\n3 + 1 = 4",
    "sum of tens": "20 + 30 = 50\n40 + 10 = 50\n80 + 30 = 110\n50 + 50 = 100",
    "product": "2 x 3 = 6\n5 x 4 = 20\n3 x 3 = 9\n10 x 2 = 20",
    "next number": "1, 2, 3, 4\n15, 16, 17, 18\n8, 9, 10, 11\n40, 41, 42, 43",
    "next multiple": "5, 10, 15, 20\n30, 40, 50, 60\n2, 4, 6, 8\n100, 200, 300, 400",
}


def arithmetic(rng: random.Random) -> Iterable[Row]:
    """Yield problems after four fixed examples, at most 46 of each kind."""
    digits = [(a, b) for a in range(2, 10) for b in range(2, 10)]
    steps = [(a, step) for step in (2, 5, 10) for a in range(step, 26 * step, step)]
    problems = {
        "sum": [(f"{a} + {b} =", a + b) for a, b in digits],
        "sum of tens": [(f"{a}0 + {b}0 =", 10 * (a + b)) for a, b in digits],
        "product": [(f"{a} x {b} =", a * b) for a, b in digits],
        "next number": [(f"{a}, {a + 1}, {a + 2},", a + 3) for a in range(3, 90)],
        "next multiple": [(f"{a}, {a + step}, {a + 2 * step},", a + 3 * step) for a, step in steps],
    }
    for kind, made in problems.items():
        # Leave out problems that the fixed examples already solve.
        for problem, result in rng.sample([p for p in made if p[0] not in SHOTS[kind]], 46):
            yield {"kind": kind, "prompt": f"{SHOTS[kind]}\n{problem}", "answer": str(result)}


STORIES = [  # the model should say {x} again at the end
    (
        "objects",
        "{a} put the {x} in a bag and walked to the {p}. At the {p}, {a} opened the bag and took "
        "out the",
    ),
    (
        "objects",
        "{b} could not find the {x}. {a} looked under the bed and in the {p}. At last {a} shouted: "
        "I have found the",
    ),
    (
        "people",
        "{b} has a friend called {x}. {x} is a {j} and knows many things. When {b} has a question, "
        "{b} always asks",
    ),
    (
        "people",
        "{x} opened the door of the {p}. {b} looked up and smiled: Good morning, {x}! And {a} "
        "said: Good morning,",
    ),
    (
        "animals",
        "{a} has a {x} that sleeps in the {p}. Every morning {a} goes to the {p} to feed the",
    ),
    (
        "animals",
        "There was a strange noise in the {p}. {a} was afraid, but {b} laughed. It was only the "
        "{x}. They both looked at the",
    ),
    (
        "places",
        "{a} and {b} agreed to meet at the {x}. {a} was late because of the rain. "
        "When {a} came, {b} was already waiting at the",
    ),
    (
        "places",
        "There is only one {x} in this town. {b} asked the way, and {a} pointed down the road. {b} "
        "walked on and soon saw the",
    ),
]


def completion(rng: random.Random) -> Iterable[Row]:
    """Yield short stories whose last word has been said before."""
    pools = {"objects": THINGS + GOODS, "people": MEN + WOMEN, "animals": ANIMALS, "places": PLACES}
    for i, (pool, story) in enumerate(STORIES):
        made: set[str] = set()
        while len(made) < 28:
            x = rng.choice(pools[pool])
            a, b = rng.sample([n for n in MEN + WOMEN if n != x], 2)
            text = story.format(
                x=x, a=a, b=b, p=rng.choice([p for p in PLACES if p != x]), j=rng.choice(JOBS)
            )
            if text not in made:
                made.add(text)
                yield {"kind": f"{pool}-{i % 2 + 1}", "prompt": text, "answer": x}


if __name__ == "__main__":
    main()
