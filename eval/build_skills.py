"""The two harder bundled tasks: chained steps, and calls of a described tool.

The data are committed. Reordering or adding a draw of the generator changes every later item.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence

Row = dict[str, object]
Pool = Sequence[str] | Sequence[int] | Sequence[bool]
"""The values that an argument may have."""

PEOPLE = (
    "Paul Tom Peter Mark Henry Daniel George Kevin Mary Anna Susan Laura Helen Emma Julia Karen"
).split()
ITEMS = "apples pens books coins stamps cards shells marbles buttons cookies".split()
SMALL = "coin key ring pearl ticket button stamp letter".split()
HOLDERS = "box bag drawer basket jar chest".split()
ROOMS = "kitchen garage office attic bedroom cellar hall library".split()
COMPARED = [
    ("older", "oldest", "youngest"),
    ("taller", "tallest", "shortest"),
    ("faster", "fastest", "slowest"),
]


# eb_reasoning: one worked example of the same kind, then a problem of two or three steps.


def reasoning(rng: random.Random) -> Iterable[Row]:
    """Yield word problems whose steps must be chained, 20 of each of five kinds.

    ``answer`` is the final number or word.
    """
    for kind, make in REASONING.items():
        for _ in range(20):
            # Two problems of the same kind: one with its steps as an example, and one to solve.
            (example, steps, solved), (question, _, answer) = make(rng), make(rng)
            shown = f"Question: {example}\nAnswer: {steps} The answer is {solved}."
            prompt = f"{shown}\n\nQuestion: {question}\nAnswer:"
            yield {"kind": kind, "prompt": prompt, "answer": answer}


def _gain_and_loss(r: random.Random) -> tuple[str, str, str]:
    (a, b), item = r.sample(PEOPLE, 2), r.choice(ITEMS)
    x, y, z = r.randint(3, 7), r.randint(1, 5), r.randint(1, 3)
    story = f"{a} has {x} {item}. {a} buys {y} more. Then {a} gives {z} to {b}."
    question = f"{story} How many {item} does {a} have now?"
    return question, f"{x} + {y} = {x + y}. {x + y} - {z} = {x + y - z}.", str(x + y - z)


def _two_gains(r: random.Random) -> tuple[str, str, str]:
    (a, b), item = r.sample(PEOPLE, 2), r.choice(ITEMS)
    x, y, z = r.randint(3, 7), r.randint(1, 5), r.randint(1, 3)
    story = f"{a} has {x} {item}. {a} finds {y} more, and {b} gives {a} {z} more."
    question = f"{story} How many {item} does {a} have now?"
    return question, f"{x} + {y} = {x + y}. {x + y} + {z} = {x + y + z}.", str(x + y + z)


def _groups(r: random.Random) -> tuple[str, str, str]:
    a, item, holder = r.choice(PEOPLE), r.choice(ITEMS), r.choice(["boxes", "bags", "jars"])
    x, y, z = r.randint(2, 5), r.choice([2, 5, 10]), r.randint(1, 3)
    story = f"{a} has {x} {holder} with {y} {item} each, and {z} more on the table."
    question = f"{story} How many {item} are there in all?"
    return question, f"{x} x {y} = {x * y}. {x * y} + {z} = {x * y + z}.", str(x * y + z)


def _order(r: random.Random) -> tuple[str, str, str]:
    a, b, c = r.sample(PEOPLE, 3)
    more, most, least = r.choice(COMPARED)
    asked, answer = r.choice([(most, a), (least, c)])
    question = f"{a} is {more} than {b}. {b} is {more} than {c}. Who is the {asked}?"
    return question, f"{a} is the {most}, then comes {b}, and {c} is the {least}.", answer


def _place(r: random.Random) -> tuple[str, str, str]:
    (x, other), (holder, second), (here, there) = (
        r.sample(SMALL, 2),
        r.sample(HOLDERS, 2),
        r.sample(ROOMS, 2),
    )
    chains = [
        f"The {x} is in the {holder}. The {holder} is in the {here}.",
        f"The {other} is in the {second}. The {second} is in the {there}.",
    ]
    question = f"{' '.join(r.sample(chains, 2))} In which room is the {x}?"
    return question, f"The {x} is in the {holder}, and the {holder} is in the {here}.", here


REASONING: dict[str, Callable[[random.Random], tuple[str, str, str]]] = {
    "gain-and-loss": _gain_and_loss,
    "two-gains": _two_gains,
    "groups": _groups,
    "order": _order,
    "place": _place,
}
"""Kind -> a function that returns a question, its steps and its answer."""


# eb_toolcall: a tool with the schema of its arguments, a request with its call, then a request.

CITIES = "Paris London Rome Madrid Berlin Vienna Oslo Dublin Tokyo Cairo".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
DISHES = "pizza soup salad pasta rice curry sushi pancakes".split()
ARTISTS = ["Mozart", "The Beatles", "Adele", "Bach", "Queen", "Miles Davis", "Nina Simone", "Elvis"]
MESSAGES = [
    "I am late",
    "Happy birthday",
    "Call me back",
    "The train is full",
    "See you soon",
    "Dinner is ready",
]
TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}

TOOLS: dict[str, tuple[str, dict[str, object], dict[str, Pool], list[str]]] = {
    "set_alarm": (
        "Set an alarm.",
        {"hour": WHOLE, "day": TEXT},
        {"hour": list(range(5, 12)), "day": DAYS},
        ["Wake me at {hour} on {day}.", "I need an alarm for {day} at {hour} o'clock."],
    ),
    "send_message": (
        "Send a text.",
        {"to": TEXT, "text": TEXT},
        {"to": PEOPLE, "text": MESSAGES},
        ["Tell {to}: {text}", "Send this to {to}: {text}"],
    ),
    "book_table": (
        "Book a table.",
        {"people": WHOLE, "day": TEXT},
        {"people": list(range(2, 10)), "day": DAYS},
        [
            "A table for {people} on {day}, please.",
            "On {day} we want to eat out. We are {people} people.",
        ],
    ),
    "get_weather": (
        "Weather of a city.",
        {"city": TEXT, "unit": {"enum": ["celsius", "fahrenheit"]}},
        {"city": CITIES, "unit": ["celsius", "fahrenheit"]},
        ["What is the weather in {city} in {unit}?", "How many degrees {unit} is it in {city}?"],
    ),
    "play_music": (
        "Play music.",
        {"artist": TEXT, "volume": WHOLE},
        {"artist": ARTISTS, "volume": list(range(1, 11))},
        [
            "Play {artist} at volume {volume}.",
            "I want to hear {artist}. Set the volume to {volume}.",
        ],
    ),
    "switch_light": (
        "Switch a light.",
        {"room": TEXT, "on": FLAG},
        {"room": ROOMS, "on": [True, False]},
        ["Turn the light in the {room} {on}.", "Light {on} in the {room}, please."],
    ),
    "order_food": (
        "Order food.",
        {"dish": TEXT, "count": WHOLE},
        {"dish": DISHES, "count": list(range(2, 10))},
        ["I want {dish} for {count} people.", "Order {count} portions of {dish}."],
    ),
    "buy_ticket": (
        "Buy a train ticket.",
        {"start": TEXT, "end": TEXT},
        {"start": CITIES[:5], "end": CITIES[5:]},
        ["A ticket from {start} to {end}.", "I must go to {end}. I am in {start}."],
    ),
    "add_event": (
        "Write in the calendar.",
        {"title": TEXT, "day": TEXT, "hour": WHOLE},
        {"title": ["Lunch", "Meeting", "Dentist", "Yoga"], "day": DAYS, "hour": list(range(8, 13))},
        ["{title} on {day} at {hour}.", "Note for {day}, {hour} o'clock: {title}."],
    ),
    "set_timer": (
        "Start a timer.",
        {"minutes": WHOLE, "label": TEXT},
        {"minutes": list(range(2, 30)), "label": DISHES},
        [
            "Tell me in {minutes} minutes that the {label} is ready.",
            "The {label} needs {minutes} minutes.",
        ],
    ),
}
"""Tool -> its description, its arguments as JSON schema, their values, and two ways to ask."""


def toolcall(rng: random.Random) -> Iterable[Row]:
    """Yield ten requests for each of ten tools.

    ``answer`` is the call as JSON, ``tool`` the description with the schema.
    """
    for name, (does, properties, values, ways) in TOOLS.items():
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        tool = json.dumps({"name": name, "description": does, "parameters": schema})
        for i in range(10):
            # The example and the request are worded in different ways, which take turns.
            (shown, shown_call), (asked, call) = (
                _request(rng, name, values, way) for way in (ways[i % 2], ways[1 - i % 2])
            )
            prompt = (
                f"Tool: {tool}\n\nRequest: {shown}\nCall: {shown_call}\n\nRequest: {asked}\nCall:"
            )
            yield {"kind": name, "prompt": prompt, "answer": call, "tool": tool}


def _request(rng: random.Random, name: str, values: dict[str, Pool], way: str) -> tuple[str, str]:
    """Return a request in the wording ``way``, and the call that answers it."""
    arguments = {key: rng.choice(pool) for key, pool in values.items()}
    # A person says "on" where the call has true.
    said = {
        key: {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        for key, value in arguments.items()
    }
    return way.format(**said), json.dumps({"name": name, "arguments": arguments})
