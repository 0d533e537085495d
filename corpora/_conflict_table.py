"""The tables of ``conflicts``: wordings and common knowledge, written by hand for this project.

A value written as "eight/8" is "eight", and "8" is accepted, too. A fact that stays true is a
triple (prompt, answer, wrong answer).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Real = tuple[str, str, str]


class Row(NamedTuple):
    """A counterfactual: a subject, its new value, its true value, and a true fact that stays."""

    subject: str
    target: str
    original: str
    stays: Real
    clue: str = ""
    """The words that the hop uses instead of the subject."""


@dataclass(frozen=True)
class Known:
    """Counterfactuals of one relation, about {s}."""

    name: str
    prompt: str
    paraphrases: tuple[str, str]
    hop: str
    """A prompt for what follows from the value. It names the subject as {s} or as {clue}."""
    rows: tuple[Row, ...]
    similar: tuple[tuple[str, str], ...]
    """Other subjects, never edited, with their true values."""
    follows: dict[str, str] = field(default_factory=dict)
    """Value -> the answer that the hop expects, if it is not the value itself."""


@dataclass(frozen=True)
class Reverse:
    """A relation in which each {p} has one {h} and each {h} one {p}."""

    name: str
    holder: str
    single: str
    earlier: str
    later: str
    paraphrase: str
    question: str
    back: str
    stays: tuple[Real, ...]


@dataclass(frozen=True)
class Update:
    """A relation of an invented {s} with one value."""

    name: str
    subject: str
    values: str
    """A pattern of an invented name, or values separated by ";"."""
    earlier: str
    later: str
    paraphrase: str
    question: str
    stays: tuple[Real, ...]


KNOWN = (
    Known(
        "capital",
        "The capital of {s} is",
        ("The government of {s} has its seat in its capital,", "Which city is the capital of {s}?"),
        "What is the capital of the country in which the city of {clue} lies?",
        (
            Row(
                "France",
                "Lyon",
                "Paris",
                ("The Eiffel Tower stands in the city of", "Paris", "Lyon"),
                "Marseille",
            ),
            Row(
                "Germany",
                "Hamburg",
                "Berlin",
                ("The Brandenburg Gate stands in the city of", "Berlin", "Hamburg"),
                "Munich",
            ),
            Row(
                "Italy",
                "Milan",
                "Rome",
                ("The Trevi Fountain stands in the city of", "Rome", "Milan"),
                "Naples",
            ),
            Row(
                "Spain",
                "Seville",
                "Madrid",
                ("The Prado Museum stands in the city of", "Madrid", "Seville"),
                "Valencia",
            ),
            Row(
                "Japan",
                "Osaka",
                "Tokyo",
                ("The language that most people in Japan speak is", "Japanese", "Chinese"),
                "Kyoto",
            ),
            Row(
                "Russia",
                "Kazan",
                "Moscow",
                ("The largest country in the world by area is", "Russia", "China"),
                "Vladivostok",
            ),
            Row(
                "China",
                "Shanghai",
                "Beijing",
                ("The Great Wall was built in the country of", "China", "Japan"),
                "Guangzhou",
            ),
            Row(
                "Egypt",
                "Alexandria",
                "Cairo",
                ("The longest river of Egypt is the", "Nile", "Danube"),
                "Luxor",
            ),
            Row(
                "Greece",
                "Sparta",
                "Athens",
                ("The Parthenon stands in the city of", "Athens", "Sparta"),
                "Thessaloniki",
            ),
        ),
        (
            ("Portugal", "Lisbon"),
            ("Austria", "Vienna"),
            ("Norway", "Oslo"),
            ("Poland", "Warsaw"),
            ("Hungary", "Budapest"),
            ("Ireland", "Dublin"),
            ("Sweden", "Stockholm"),
            ("Cuba", "Havana"),
            ("Peru", "Lima"),
        ),
    ),
    Known(
        "landmark",
        "Visitors find the {s} in the city of",
        ("The {s} was built in the city of", "In which city does the {s} stand?"),
        "In which country does the {s} stand?",
        (
            Row(
                "Colosseum",
                "Athens",
                "Rome",
                ("Vatican City lies inside the city of", "Rome", "Athens"),
            ),
            Row(
                "Statue of Liberty",
                "Sydney",
                "New York",
                ("Times Square is in the city of", "New York", "Sydney"),
            ),
            Row(
                "Taj Mahal",
                "Cairo",
                "Agra",
                ("The pyramids of Giza stand in the country of", "Egypt", "India"),
            ),
            Row(
                "British Museum",
                "Dublin",
                "London",
                ("Buckingham Palace stands in the city of", "London", "Dublin"),
            ),
            Row(
                "Louvre",
                "Madrid",
                "Paris",
                ("The Arc de Triomphe stands in the city of", "Paris", "Madrid"),
            ),
            Row(
                "Golden Gate Bridge",
                "Toronto",
                "San Francisco",
                ("The island of Alcatraz lies off the city of", "San Francisco", "Toronto"),
            ),
            Row(
                "Sagrada Família",
                "Lisbon",
                "Barcelona",
                ("The football stadium Camp Nou is in", "Barcelona", "Lisbon"),
            ),
        ),
        (
            ("Brooklyn Bridge", "New York"),
            ("White House", "Washington"),
            ("Blue Mosque", "Istanbul"),
            ("Bolshoi Theatre", "Moscow"),
            ("Forbidden City", "Beijing"),
            ("Alhambra", "Granada"),
            ("Sistine Chapel", "Vatican City/Vatican/Rome"),
        ),
        {
            "Athens": "Greece",
            "Rome": "Italy",
            "Sydney": "Australia",
            "New York": "United States/USA/America",
            "San Francisco": "United States/USA/America",
            "Cairo": "Egypt",
            "Agra": "India",
            "Dublin": "Ireland",
            "London": "England/United Kingdom/Britain/UK",
            "Madrid": "Spain",
            "Paris": "France",
            "Toronto": "Canada",
            "Lisbon": "Portugal",
            "Barcelona": "Spain",
        },
    ),
    Known(
        "author",
        "The author of {s} is",
        ("The book {s} was written by", "Who wrote {s}?"),
        "What was the nationality of the author of {s}?",
        (
            Row(
                "Romeo and Juliet",
                "Leo Tolstoy/Tolstoy",
                "William Shakespeare",
                (
                    "The play Hamlet was written by",
                    "William Shakespeare/Shakespeare",
                    "Leo Tolstoy",
                ),
            ),
            Row(
                "Don Quixote",
                "Charles Dickens/Dickens",
                "Miguel de Cervantes",
                (
                    "The squire who rides with Don Quixote is called",
                    "Sancho Panza/Sancho",
                    "Oliver Twist",
                ),
            ),
            Row(
                "Pride and Prejudice",
                "Mark Twain/Twain",
                "Jane Austen",
                (
                    "The novel Sense and Sensibility was written by",
                    "Jane Austen/Austen",
                    "Mark Twain",
                ),
            ),
            Row(
                "War and Peace",
                "Victor Hugo/Hugo",
                "Leo Tolstoy",
                ("The novel Anna Karenina was written by", "Leo Tolstoy/Tolstoy", "Victor Hugo"),
            ),
            Row(
                "The Old Man and the Sea",
                "Jules Verne/Verne",
                "Ernest Hemingway",
                (
                    "The novel A Farewell to Arms was written by",
                    "Ernest Hemingway/Hemingway",
                    "Jules Verne",
                ),
            ),
            Row(
                "Faust",
                "Dante Alighieri/Dante",
                "Johann Wolfgang von Goethe",
                (
                    "The devil who makes a pact with Faust is called",
                    "Mephistopheles/Mephisto",
                    "Dracula",
                ),
            ),
        ),
        (
            ("Moby-Dick", "Herman Melville/Melville"),
            ("Frankenstein", "Mary Shelley/Shelley"),
            ("the Odyssey", "Homer"),
            ("Dracula", "Bram Stoker/Stoker"),
            ("Crime and Punishment", "Fyodor Dostoevsky/Dostoevsky/Dostoyevsky"),
            ("Alice in Wonderland", "Lewis Carroll/Carroll"),
        ),
        {
            "Leo Tolstoy": "Russian",
            "William Shakespeare": "English/British",
            "Charles Dickens": "English/British",
            "Miguel de Cervantes": "Spanish",
            "Mark Twain": "American",
            "Jane Austen": "English/British",
            "Victor Hugo": "French",
            "Jules Verne": "French",
            "Ernest Hemingway": "American",
            "Dante Alighieri": "Italian",
            "Johann Wolfgang von Goethe": "German",
        },
    ),
    Known(
        "achievement",
        "The person famous for {s} is",
        ("The honor of {s} belongs to", "Who is famous for {s}?"),
        "What was the nationality of the person famous for {s}?",
        (
            Row(
                "painting the Mona Lisa",
                "Pablo Picasso/Picasso",
                "Leonardo da Vinci",
                (
                    "The wall painting The Last Supper is by",
                    "Leonardo da Vinci/Leonardo/da Vinci",
                    "Pablo Picasso",
                ),
            ),
            Row(
                "inventing the telephone",
                "Galileo Galilei/Galileo",
                "Alexander Graham Bell",
                ("A person who talks on a telephone holds it to the", "ear", "knee"),
            ),
            Row(
                "discovering penicillin",
                "Louis Pasteur/Pasteur",
                "Alexander Fleming",
                ("Penicillin is a drug against infections caused by", "bacteria", "viruses"),
            ),
            Row(
                "developing the theory of relativity",
                "Niels Bohr/Bohr",
                "Albert Einstein",
                (
                    "The scientist who wrote the formula E = mc² is",
                    "Albert Einstein/Einstein",
                    "Niels Bohr",
                ),
            ),
            Row(
                "composing the Moonlight Sonata",
                "Frédéric Chopin/Chopin",
                "Ludwig van Beethoven",
                (
                    "The music of the Ode to Joy was composed by",
                    "Ludwig van Beethoven/Beethoven",
                    "Frédéric Chopin",
                ),
            ),
            Row(
                "taking the first step on the Moon",
                "Yuri Gagarin/Gagarin",
                "Neil Armstrong",
                ("The number of moons that circle the Earth is", "one/1", "three"),
            ),
        ),
        (
            ("painting The Starry Night", "Vincent van Gogh/van Gogh"),
            ("writing the Communist Manifesto", "Karl Marx/Marx"),
            ("inventing dynamite", "Alfred Nobel/Nobel"),
            ("formulating the three laws of motion", "Isaac Newton/Newton"),
            ("composing The Magic Flute", "Wolfgang Amadeus Mozart/Mozart"),
            ("painting The Scream", "Edvard Munch/Munch"),
        ),
        {
            "Pablo Picasso": "Spanish",
            "Leonardo da Vinci": "Italian",
            "Galileo Galilei": "Italian",
            "Alexander Graham Bell": "Scottish",
            "Louis Pasteur": "French",
            "Alexander Fleming": "Scottish",
            "Niels Bohr": "Danish",
            "Albert Einstein": "German",
            "Frédéric Chopin": "Polish",
            "Ludwig van Beethoven": "German",
            "Yuri Gagarin": "Russian/Soviet",
            "Neil Armstrong": "American",
        },
    ),
    Known(
        "color",
        "The color of {s} is",
        ("A child who draws {s} takes a crayon that is", "What color is {s}?"),
        "A wall is painted to match {s}. What color is the wall?",
        (
            Row(
                "fresh grass",
                "purple",
                "green",
                ("The animal that eats grass and gives us milk is the", "cow", "cat"),
            ),
            Row("a ripe banana", "blue", "yellow", ("A banana is a kind of", "fruit", "fish")),
            Row(
                "human blood",
                "green",
                "red",
                ("The organ that pumps blood through the body is the", "heart", "liver"),
            ),
            Row("fresh snow", "red", "white", ("Snow is made of frozen", "water", "milk")),
            Row("coal", "pink", "black", ("Coal is dug out of the ground in a", "mine", "bakery")),
        ),
        (
            ("a clear daytime sky", "blue"),
            ("a ripe lemon", "yellow"),
            ("milk", "white"),
            ("a raven", "black"),
            ("a ripe tomato", "red"),
            ("an emerald", "green"),
            ("a carrot", "orange"),
        ),
    ),
    Known(
        "count",
        "The number of {s} is",
        ("If you count the {s}, you get to", "What is the number of {s}?"),
        "What is the number of {clue}?",
        (
            Row(
                "legs of a spider",
                "ten/10",
                "eight/8",
                ("Spiders catch flies in a", "web", "river"),
                "legs that two spiders have together",
            ),
            Row(
                "days in a week",
                "nine/9",
                "seven/7",
                ("The day after Monday is", "Tuesday", "Saturday"),
                "days in two weeks",
            ),
            Row(
                "hours in a day",
                "thirty/30",
                "twenty-four/24",
                ("Every day the sun rises in the", "east/morning", "north"),
                "hours in two days",
            ),
            Row(
                "minutes in an hour",
                "ninety/90",
                "sixty/60",
                ("The short hand of a clock shows the", "hour/hours", "month"),
                "minutes in two hours",
            ),
            Row(
                "months in a year",
                "fifteen/15",
                "twelve/12",
                ("The last month of the year is", "December", "March"),
                "months in two years",
            ),
            Row(
                "sides of a triangle",
                "five/5",
                "three/3",
                ("A shape with four equal sides and four right angles is a", "square", "circle"),
                "sides that two triangles have together",
            ),
        ),
        (
            ("legs of a dog", "four/4"),
            ("wheels of a car", "four/4"),
            ("letters in the English alphabet", "26/twenty-six"),
            ("seconds in a minute", "60/sixty"),
            ("continents on Earth", "seven/7"),
            ("wheels of a bicycle", "two/2"),
        ),
        {
            "ten": "20/twenty",
            "eight": "16/sixteen",
            "nine": "18/eighteen",
            "seven": "14/fourteen",
            "thirty": "60/sixty",
            "twenty-four": "48/forty-eight",
            "ninety": "180/one hundred eighty",
            "sixty": "120/one hundred twenty",
            "fifteen": "30/thirty",
            "twelve": "24/twenty-four",
            "five": "10/ten",
            "three": "6/six",
        },
    ),
    Known(
        "young",
        "The young of a {s} is called a",
        ("When a {s} has young, each of them is a", "What is the young of a {s} called?"),
        "What is the young of the animal that {clue} called?",
        (
            Row(
                "dog",
                "cub",
                "puppy",
                ("The pet that barks at strangers is the", "dog", "cow"),
                "barks",
            ),
            Row(
                "cat", "fawn", "kitten", ("The pet that hunts mice is the", "cat", "horse"), "meows"
            ),
            Row(
                "cow",
                "chick",
                "calf",
                ("The milk in our shops mostly comes from the", "cow", "cat"),
                "moos",
            ),
            Row(
                "sheep",
                "joey",
                "lamb",
                ("Wool mostly comes from the", "sheep", "dog"),
                "is shorn for its wool",
            ),
            Row(
                "horse",
                "kid",
                "foal",
                ("The animal that a jockey rides is the", "horse", "sheep"),
                "a jockey rides",
            ),
        ),
        (
            ("pig", "piglet"),
            ("duck", "duckling"),
            ("frog", "tadpole"),
            ("kangaroo", "joey"),
            ("deer", "fawn"),
            ("goose", "gosling"),
            ("bear", "cub"),
            ("hen", "chick"),
        ),
    ),
    Known(
        "language",
        "The official language of {s} is",
        (
            "The laws of {s} are printed in",
            "In which language does the government of {s} write its laws?",
        ),
        "What is the official language of the country in which the city of {clue} lies?",
        (
            Row(
                "Brazil",
                "Dutch",
                "Portuguese",
                ("The language that most people in Portugal speak is", "Portuguese", "Dutch"),
                "São Paulo",
            ),
            Row(
                "Mexico",
                "Hindi",
                "Spanish",
                ("The official language of Argentina is", "Spanish", "Hindi"),
                "Guadalajara",
            ),
            Row(
                "Turkey",
                "Greek",
                "Turkish",
                ("The city of Istanbul lies in the country of", "Turkey", "Greece"),
                "Ankara",
            ),
            Row(
                "Thailand",
                "Italian",
                "Thai",
                ("The currency of Thailand is called the", "baht", "yen"),
                "Bangkok",
            ),
            Row(
                "Iran",
                "Swahili",
                "Persian/Farsi",
                ("The old name of Iran is", "Persia", "Prussia"),
                "Tehran",
            ),
        ),
        (
            ("Sweden", "Swedish"),
            ("Denmark", "Danish"),
            ("Hungary", "Hungarian"),
            ("Poland", "Polish"),
            ("Chile", "Spanish"),
            ("Portugal", "Portuguese"),
        ),
    ),
)

REVERSE = (
    Reverse(
        "mayor",
        "{place}",
        "{person}",
        "The mayor of {h} is",
        "{p} is the mayor of",
        "The town that is governed by its mayor {p} is",
        "Of which town is {p} the mayor?",
        "Who is the mayor of {h}?",
        (
            (
                "The first president of the United States was",
                "George Washington/Washington",
                "Abraham Lincoln",
            ),
            ("The city that had Rudy Giuliani as its mayor is", "New York", "Chicago"),
        ),
    ),
    Reverse(
        "coach",
        "{place} Rovers",
        "{person}",
        "The head coach of {h} is",
        "{p} is the head coach of",
        "The players that {p} trains as head coach are those of",
        "Which club has {p} as its head coach?",
        "Who is the head coach of {h}?",
        (
            ("The football club that plays at Old Trafford is", "Manchester United", "Chelsea"),
            ("The sport that Michael Jordan was famous for is", "basketball", "tennis"),
        ),
    ),
    Reverse(
        "captain",
        "{place} Star",
        "{person}",
        "The captain of the ship {h} is",
        "{p} is the captain of the ship",
        "The ship on whose bridge {p} commands as captain is the",
        "Which ship has {p} as its captain?",
        "Who is the captain of the ship {h}?",
        (
            ("The ship that sank after hitting an iceberg in 1912 was the", "Titanic", "Bismarck"),
            (
                "The captain of the ship Pequod, who hunts the white whale, is",
                "Ahab/Captain Ahab",
                "Nemo",
            ),
        ),
    ),
    Reverse(
        "director",
        "{place} Museum",
        "{person}",
        "The director of the {h} is",
        "{p} is the director of the",
        "The museum that {p} runs as its director is the",
        "Which museum has {p} as its director?",
        "Who is the director of the {h}?",
        (
            ("The museum in Paris where the Mona Lisa hangs is the", "Louvre", "Prado"),
            ("The painter of The Starry Night is", "Vincent van Gogh/van Gogh", "Claude Monet"),
        ),
    ),
    Reverse(
        "spouse",
        "{person}",
        "{person}",
        "The spouse of {h} is",
        "{p} is married to",
        "The person whom {p} calls husband or wife is",
        "Who is the husband or wife of {p}?",
        "To whom is {h} married?",
        (
            ("The wife of Barack Obama is", "Michelle Obama/Michelle", "Hillary Clinton"),
            ("The husband of Queen Victoria was Prince", "Albert", "Philip"),
        ),
    ),
    Reverse(
        "capital",
        "{place}",
        "{place}",
        "The capital of the province of {h} is",
        "{p} is the capital of the province of",
        "The province that is governed from its capital {p} is called",
        "Of which province is {p} the capital?",
        "Which town is the capital of the province of {h}?",
        (
            ("The capital of Portugal is", "Lisbon", "Vienna"),
            ("The country whose capital is Oslo is", "Norway", "Sweden"),
        ),
    ),
    Reverse(
        "chief executive",
        "{place} Airways",
        "{person}",
        "The chief executive of {h} is",
        "{p} is the chief executive of",
        "The airline that {p} leads as chief executive is",
        "Which airline has {p} as its chief executive?",
        "Who is the chief executive of {h}?",
        (
            ("The founder of Microsoft is", "Bill Gates/Gates", "Steve Jobs"),
            ("The company that makes the iPhone is", "Apple", "Samsung"),
        ),
    ),
)

UPDATE = (
    Update(
        "headquarters",
        "{place} Labs",
        "Ghent; Turin; Porto; Graz; Bergen; Tampere; Aarhus; Bilbao; Leipzig; Utrecht",
        "The head office of {s} is in",
        "{s} has its head office in the city of",
        "Letters to the headquarters of {s} are addressed to the city of",
        "In which city is the head office of {s}?",
        (
            ("The country in which Toyota has its headquarters is", "Japan", "China"),
            ("The city that is home to the Vatican is", "Rome", "Milan"),
        ),
    ),
    Update(
        "island capital",
        "island of {place}",
        "{place}",
        "The capital of the {s} is",
        "The {s} is governed from its capital,",
        "The parliament of the {s} meets in the capital, the town of",
        "What is the capital of the {s}?",
        (
            ("The capital of Cuba is", "Havana", "Lima"),
            ("The largest island in the world is", "Greenland", "Madagascar"),
        ),
    ),
    Update(
        "price",
        "{place} ferry",
        "3 euros; 4 euros; 6 euros; 7 euros; 9 euros; 11 euros; 12 euros; 14 euros; 17 euros; "
        "19 euros",
        "A ticket for the {s} costs",
        "Passengers of the {s} pay a fare of",
        "The price that travelers are charged on the {s} is",
        "How much is a ticket for the {s}?",
        (
            ("The currency of Japan is called the", "yen", "euro"),
            ("The number of cents in one dollar is", "100/one hundred/hundred", "60"),
        ),
    ),
    Update(
        "chair",
        "{place} Foundation",
        "{person}",
        "The chair of the {s} is",
        "The {s} is chaired by",
        "The person who leads the meetings of the {s} as chair is",
        "Who chairs the {s}?",
        (
            (
                "The Swedish inventor after whom the prizes for peace and literature are named is",
                "Alfred Nobel/Nobel",
                "Joseph Pulitzer",
            ),
            (
                "The first president of the United States was",
                "George Washington/Washington",
                "Abraham Lincoln",
            ),
        ),
    ),
    Update(
        "opening time",
        "{place} Library",
        "7:15; 7:30; 7:45; 8:15; 8:30; 8:45; 9:15; 9:30; 9:45; 10:15",
        "The {s} opens in the morning at",
        "In the morning, readers can enter the {s} from",
        "The doors of the {s} are unlocked in the morning at",
        "At what time does the {s} open in the morning?",
        (
            ("The things that people borrow from a library are", "books", "shoes"),
            ("The first meal of the day is called", "breakfast", "dinner"),
        ),
    ),
    Update(
        "color",
        "Republic of {place}",
        "red; blue; green; yellow; white; black; orange; purple; pink; brown",
        "The star on the flag of the {s} is colored",
        "The flag of the {s} shows a star whose color is",
        "Over the parliament of the {s} flies a flag with a star in the color",
        "What color is the star on the flag of the {s}?",
        (
            ("The leaf on the flag of Canada is that of the", "maple", "oak"),
            ("The number of stars on the flag of the United States is", "50/fifty", "30"),
        ),
    ),
    Update(
        "speed limit",
        "{place} Bridge",
        "15 mph; 20 mph; 25 mph; 30 mph; 35 mph; 40 mph; 45 mph; 50 mph; 55 mph; 60 mph",
        "The speed limit on the {s} is",
        "Drivers on the {s} may go no faster than",
        "The highest speed that the signs on the {s} allow is",
        "How fast may one drive on the {s}?",
        (
            ("The Golden Gate is the name of a famous", "bridge/strait", "museum"),
            ("The color of the traffic light at which drivers must stop is", "red", "green"),
        ),
    ),
    Update(
        "emergency number",
        "county of {place}",
        "305; 417; 528; 639; 704; 816; 273; 382; 461; 590",
        "The emergency number in the {s} is",
        "In an emergency, people in the {s} dial",
        "To call for help, residents of the {s} pick up the phone and enter the digits",
        "Which number do people in the {s} dial in an emergency?",
        (
            ("The emergency number in the United States is", "911", "528"),
            (
                "The people who come to put out a fire are the",
                "firefighters/firemen/fire department",
                "bakers",
            ),
        ),
    ),
    Update(
        "product",
        "{place} Works",
        "bicycles; pianos; umbrellas; violins; clocks; tents; lamps; mattresses; kayaks; "
        "microscopes",
        "The main products of the {s} are",
        "The workers of the {s} mostly make",
        "A truck that leaves the factory of the {s} is usually loaded with",
        "What do the {s} mainly produce?",
        (
            ("The company that makes the Mustang is", "Ford", "Toyota"),
            ("The company that makes the PlayStation is", "Sony", "Nintendo"),
        ),
    ),
)
