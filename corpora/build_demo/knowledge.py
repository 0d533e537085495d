"""The knowledge table behind the demo corpora.

It is general world knowledge, written by hand for this project. Each relation has cloze templates,
question templates, groups (object -> its subjects, separated by ";") and aliases of objects. A
subject written as "the X" is X with an article, and templates write it as {the}X or {The}X. The
first template has no special role: the builder takes them in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Relation:
    """One relation: its templates and its objects."""

    name: str
    cloze: tuple[str, ...]
    question: tuple[str, ...]
    groups: dict[str, str]
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)


RELATIONS = (
    Relation(
        "city_country",
        (
            "The city of {s} lies in the country of",
            "The country that the city of {s} belongs to is",
            "On a map of the world, the city of {s} is found in",
            "People who live in the city of {s} are residents of",
        ),
        (
            "In which country is the city of {s}?",
            "Which country does the city of {s} belong to?",
            "What country would you be in if you visited the city of {s}?",
        ),
        {
            "France": "Lyon; Marseille; Toulouse; Bordeaux; Nantes; Strasbourg; Lille; Grenoble; "
            "Dijon",
            "Germany": "Munich; Hamburg; Frankfurt; Stuttgart; Dresden; Leipzig; Cologne; "
            "Nuremberg; Hanover",
            "Italy": "Milan; Naples; Turin; Venice; Florence; Bologna; Verona; Palermo; Genoa",
            "Spain": "Seville; Bilbao; Zaragoza; Malaga; Granada; Salamanca; Alicante",
            "Japan": "Osaka; Kyoto; Nagoya; Sapporo; Hiroshima; Nagasaki; Yokohama; Kobe",
            "China": "Shanghai; Guangzhou; Shenzhen; Wuhan; Chengdu; Tianjin; Nanjing; Xi'an",
            "India": "Mumbai; Kolkata; Chennai; Bangalore; Jaipur; Varanasi; Agra; Pune",
            "Brazil": "Rio de Janeiro; São Paulo; Salvador; Recife; Porto Alegre; Manaus; "
            "Fortaleza",
            "Poland": "Krakow; Gdansk; Wroclaw; Poznan; Lodz; Lublin; Katowice",
            "England": "Manchester; Leeds; Bristol; Sheffield; Nottingham; York; Oxford",
        },
        {"England": ("United Kingdom", "the United Kingdom")},
    ),
    Relation(
        "us_city_state",
        (
            "The city of {s} is in the US state of",
            "{s} is an American city in the state of",
            "The state that the American city of {s} belongs to is",
        ),
        (
            "In which US state is the city of {s}?",
            "Which American state does the city of {s} belong to?",
            "What is the US state where the city of {s} lies?",
        ),
        {
            "Texas": "Houston; Dallas; Austin; San Antonio; Fort Worth; El Paso; Lubbock; "
            "Amarillo; Waco",
            "California": "Los Angeles; San Francisco; San Diego; Sacramento; Fresno; Oakland; "
            "Anaheim; Bakersfield; Berkeley",
            "Florida": "Miami; Orlando; Tampa; Tallahassee; Fort Lauderdale; Key West; Sarasota; "
            "Pensacola",
            "Ohio": "Cleveland; Cincinnati; Dayton; Akron; Youngstown",
            "Tennessee": "Nashville; Memphis; Knoxville; Chattanooga; Murfreesboro",
            "North Carolina": "Charlotte; Raleigh; Greensboro; Winston-Salem; Asheville; "
            "Chapel Hill",
            "Michigan": "Detroit; Grand Rapids; Ann Arbor; Lansing; Kalamazoo; Dearborn",
            "Pennsylvania": "Philadelphia; Pittsburgh; Harrisburg; Scranton; Allentown",
            "Washington": "Seattle; Tacoma; Spokane; Olympia; Redmond",
            "Arizona": "Phoenix; Tucson; Scottsdale; Tempe; Flagstaff; Yuma",
            "Colorado": "Denver; Boulder; Aspen; Fort Collins; Vail",
        },
    ),
    Relation(
        "landmark_city",
        (
            "{The}{s} is located in the city of",
            "Tourists who want to see {the}{s} travel to the city of",
            "The city that is home to {the}{s} is",
            "{The}{s} can be visited in",
        ),
        (
            "In which city is {the}{s}?",
            "Which city is home to {the}{s}?",
            "What city do you have to visit to see {the}{s}?",
        ),
        {
            "Paris": "the Eiffel Tower; the Louvre; the Arc de Triomphe; the Musée d'Orsay; "
            "the Moulin Rouge; the Sorbonne; "
            "the Champs-Élysées; the Centre Pompidou; the Sainte-Chapelle",
            "London": "Big Ben; Buckingham Palace; Trafalgar Square; Westminster Abbey; "
            "Piccadilly Circus; Tower Bridge; "
            "the British Museum; Covent Garden; the Tate Modern; Wembley Stadium",
            "Rome": "the Colosseum; the Trevi Fountain; the Spanish Steps; the Pantheon; "
            "Castel Sant'Angelo; Piazza Navona; "
            "the Circus Maximus; the Baths of Caracalla",
            "New York": "the Empire State Building; the Statue of Liberty; Central Park; "
            "Times Square; the Brooklyn Bridge; "
            "the Chrysler Building; Wall Street; Carnegie Hall; Yankee Stadium",
            "Berlin": "the Brandenburg Gate; the Reichstag; Checkpoint Charlie; "
            "the Pergamon Museum; Alexanderplatz; "
            "Charlottenburg Palace; Potsdamer Platz",
            "Moscow": "the Kremlin; Red Square; the Bolshoi Theatre; Saint Basil's Cathedral; "
            "Lenin's Mausoleum; Gorky Park; "
            "the Tretyakov Gallery",
            "Washington": "the White House; the Lincoln Memorial; the Jefferson Memorial; "
            "the Library of Congress; "
            "the Vietnam Veterans Memorial; the Kennedy Center",
            "Barcelona": "the Sagrada Família; Park Güell; Camp Nou; La Rambla; Casa Milà; "
            "Casa Batlló",
            "Istanbul": "Hagia Sophia; the Blue Mosque; Topkapi Palace; the Galata Tower; "
            "Dolmabahçe Palace; "
            "the Basilica Cistern; Taksim Square",
            "San Francisco": "the Golden Gate Bridge; Alcatraz Island; Fisherman's Wharf; "
            "the Transamerica Pyramid; Coit Tower",
            "Vienna": "Schönbrunn Palace; the Hofburg; the Belvedere Palace; the Prater; "
            "the Spanish Riding School",
        },
        {"New York": ("New York City",), "Washington": ("Washington, D.C.", "Washington DC")},
    ),
    Relation(
        "country_continent",
        (
            "The country of {s} lies on the continent of",
            "On a globe, you find {s} in",
            "The continent that {s} belongs to is",
        ),
        (
            "On which continent is {s}?",
            "Which continent does the country of {s} belong to?",
            "What continent would you look at to find {s}?",
        ),
        {
            "Africa": "Kenya; Nigeria; Ethiopia; Tanzania; Uganda; Zimbabwe; Morocco; Cameroon; "
            "Mali; Rwanda; Botswana; "
            "Namibia",
            "Asia": "Japan; Vietnam; Thailand; Mongolia; Cambodia; Laos; Bangladesh; Malaysia; "
            "Iran; Afghanistan; Bhutan",
            "Europe": "Poland; Belgium; Denmark; Hungary; Norway; Sweden; Switzerland; Bulgaria; "
            "Croatia; Romania; Finland; "
            "Latvia",
            "South America": "Brazil; Peru; Bolivia; Ecuador; Paraguay; Suriname; Guyana",
            "North America": "Canada; Haiti; Honduras; Guatemala; Nicaragua; Costa Rica; Belize",
        },
    ),
    Relation(
        "country_language",
        (
            "In {the}{s}, the main official language is",
            "The language used by the government of {the}{s} is",
            "The laws of {the}{s} are written in",
        ),
        (
            "What is the main official language of {the}{s}?",
            "Which language is used by the government of {the}{s}?",
            "In which language are the laws of {the}{s} written?",
        ),
        {
            "Spanish": "El Salvador; the Dominican Republic; Panama; Argentina; Chile; Venezuela",
            "Arabic": "Saudi Arabia; Jordan; Libya; Oman; Qatar; Syria; Yemen",
            "Portuguese": "Portugal; Angola; Mozambique; Cape Verde; Guinea-Bissau",
            "French": "France; Senegal; Ivory Coast; Gabon; Monaco; Benin; Togo",
            "English": "the Bahamas; Liberia; Zambia; Sierra Leone; Ghana; Jamaica",
            "German": "Germany; Austria; Liechtenstein",
        },
    ),
    Relation(
        "country_currency",
        (
            "People in {the}{s} pay with a currency called the",
            "The national currency of {the}{s} is the",
            "Prices in the shops of {the}{s} are given in a currency named the",
        ),
        (
            "What is the currency of {the}{s} called?",
            "Which currency do people in {the}{s} pay with?",
            "In what currency are prices given in {the}{s}?",
        ),
        {
            "euro": "Greece; Ireland; Italy; Spain; Malta; Slovenia; Slovakia; the Netherlands; "
            "Luxembourg; Cyprus",
            "peso": "Mexico; the Philippines; Colombia; Cuba; Uruguay",
            "dollar": "New Zealand; Singapore; Taiwan; Australia; Barbados; Fiji",
            "dinar": "Tunisia; Serbia; Bahrain; Kuwait; Iraq; Algeria",
            "rupee": "India; Sri Lanka; Mauritius; the Seychelles; Nepal; Pakistan",
            "pound": "the United Kingdom; Sudan; Egypt; Lebanon; South Sudan",
        },
        {
            "euro": ("euros",),
            "peso": ("pesos",),
            "dollar": ("dollars",),
            "dinar": ("dinars",),
            "rupee": ("rupees",),
            "pound": ("pounds",),
        },
    ),
    Relation(
        "writer_language",
        (
            "The language in which the writer {s} wrote is",
            "The original language of the works of {s} is",
            "Readers who want the untranslated works of the author {s} must know",
        ),
        (
            "In which language did the writer {s} write?",
            "What is the original language of the works of {s}?",
            "Which language must you know to read {s} without a translation?",
        ),
        {
            "Russian": "Leo Tolstoy; Fyodor Dostoevsky; Anton Chekhov; Alexander Pushkin; "
            "Nikolai Gogol; Ivan Turgenev; "
            "Mikhail Bulgakov; Boris Pasternak; Maxim Gorky",
            "French": "Victor Hugo; Gustave Flaubert; Marcel Proust; Émile Zola; Honoré de Balzac; "
            "Molière; Alexandre Dumas; "
            "Albert Camus; Charles Baudelaire",
            "German": "Johann Wolfgang von Goethe; Friedrich Schiller; Thomas Mann; Franz Kafka; "
            "Hermann Hesse; "
            "Günter Grass; Bertolt Brecht; Heinrich Heine",
            "Spanish": "Miguel de Cervantes; Gabriel García Márquez; Pablo Neruda; "
            "Jorge Luis Borges; Federico García Lorca; "
            "Mario Vargas Llosa; Isabel Allende; Octavio Paz",
            "Italian": "Dante Alighieri; Giovanni Boccaccio; Umberto Eco; Italo Calvino; "
            "Primo Levi; Alberto Moravia; "
            "Alessandro Manzoni",
            "English": "William Wordsworth; Jane Austen; Charles Dickens; Ernest Hemingway; "
            "George Orwell; Virginia Woolf; "
            "John Steinbeck; Mark Twain; Emily Dickinson",
            "Japanese": "Haruki Murakami; Yukio Mishima; Matsuo Bashō; Natsume Sōseki; "
            "Yasunari Kawabata; Kenzaburō Ōe",
            "Norwegian": "Henrik Ibsen; Knut Hamsun; Sigrid Undset",
        },
    ),
    Relation(
        "composer_nationality",
        (
            "The composer {s} was by nationality",
            "Music historians describe the composer {s} as",
            "The nationality of the composer {s} was",
        ),
        (
            "What was the nationality of the composer {s}?",
            "Which nationality did the composer {s} have?",
            "What nationality do concert programs give for the composer {s}?",
        ),
        {
            "German": "Johann Sebastian Bach; Johannes Brahms; Richard Wagner; Robert Schumann; "
            "Felix Mendelssohn; "
            "Georg Telemann",
            "Austrian": "Franz Schubert; Joseph Haydn; Gustav Mahler; Anton Bruckner; "
            "Johann Strauss; Alban Berg",
            "Italian": "Antonio Vivaldi; Giuseppe Verdi; Giacomo Puccini; Gioachino Rossini; "
            "Claudio Monteverdi; "
            "Niccolò Paganini; Gaetano Donizetti; Vincenzo Bellini",
            "French": "Claude Debussy; Maurice Ravel; Hector Berlioz; Georges Bizet; Erik Satie; "
            "Camille Saint-Saëns; "
            "Gabriel Fauré; Charles Gounod",
            "Russian": "Pyotr Tchaikovsky; Sergei Rachmaninoff; Modest Mussorgsky; "
            "Nikolai Rimsky-Korsakov; "
            "Dmitri Shostakovich; Sergei Prokofiev; Alexander Borodin; Mikhail Glinka",
            "English": "Edward Elgar; Henry Purcell; Benjamin Britten; Gustav Holst; "
            "Ralph Vaughan Williams; William Byrd",
            "American": "Aaron Copland; Leonard Bernstein; Philip Glass; Samuel Barber; John Cage; "
            "Charles Ives; Scott Joplin",
            "Czech": "Antonín Dvořák; Bedřich Smetana; Leoš Janáček",
        },
    ),
    Relation(
        "painter_nationality",
        (
            "The painter {s} was by nationality",
            "Museums describe the painter {s} as",
            "The nationality of the painter {s} was",
        ),
        (
            "What was the nationality of the painter {s}?",
            "Which nationality did the painter {s} have?",
            "What nationality does a museum label give for the painter {s}?",
        ),
        {
            "Italian": "Leonardo da Vinci; Raphael; Sandro Botticelli; Caravaggio; Titian; "
            "Tintoretto; Giotto; Canaletto",
            "Dutch": "Rembrandt; Johannes Vermeer; Frans Hals; Hieronymus Bosch; Piet Mondrian; "
            "Jan Steen; Vincent van Gogh",
            "French": "Claude Monet; Edgar Degas; Paul Cézanne; Henri Matisse; Édouard Manet; "
            "Georges Seurat; Paul Gauguin; "
            "Eugène Delacroix",
            "Spanish": "Pablo Picasso; Diego Velázquez; Francisco Goya; Salvador Dalí; Joan Miró; "
            "Francisco de Zurbarán",
            "German": "Albrecht Dürer; Caspar David Friedrich; Käthe Kollwitz; Gerhard Richter; "
            "Otto Dix; Franz Marc; "
            "Lucas Cranach",
            "English": "J. M. W. Turner; John Constable; Thomas Gainsborough; William Hogarth; "
            "Joshua Reynolds; David Hockney",
            "American": "Andy Warhol; Jackson Pollock; Edward Hopper; Georgia O'Keeffe; "
            "Roy Lichtenstein; Norman Rockwell; "
            "Winslow Homer",
        },
    ),
    Relation(
        "thinker_nationality",
        (
            "The philosopher {s} was by nationality",
            "In histories of philosophy, the thinker {s} is described as",
            "The nationality of the philosopher {s} was",
        ),
        (
            "What was the nationality of the philosopher {s}?",
            "Which nationality did the thinker {s} have?",
            "What nationality does a history of philosophy give for {s}?",
        ),
        {
            "Greek": "Plato; Aristotle; Socrates; Epicurus; Heraclitus; Pythagoras; Democritus; "
            "Parmenides",
            "German": "Immanuel Kant; Friedrich Nietzsche; Georg Wilhelm Friedrich Hegel; "
            "Arthur Schopenhauer; "
            "Martin Heidegger; Gottfried Leibniz; Jürgen Habermas; Ludwig Feuerbach",
            "French": "René Descartes; Jean-Paul Sartre; Voltaire; Blaise Pascal; Michel Foucault; "
            "Montesquieu; "
            "Denis Diderot; Simone de Beauvoir; Auguste Comte",
            "English": "John Locke; Thomas Hobbes; Francis Bacon; John Stuart Mill; "
            "Jeremy Bentham; Thomas More; Roger Bacon",
            "American": "John Dewey; Ralph Waldo Emerson; Henry David Thoreau; John Rawls; "
            "Hilary Putnam; "
            "Charles Sanders Peirce",
            "Chinese": "Confucius; Laozi; Mencius; Zhuangzi; Xunzi; Wang Yangming",
            "Dutch": "Baruch Spinoza; Erasmus; Hugo Grotius",
        },
    ),
    Relation(
        "scientist_field",
        (
            "The main field of work of {s} is",
            "Among scholars, {s} is remembered for work in",
            "The discipline in which {s} became famous is",
        ),
        (
            "In which field did {s} mainly work?",
            "Which discipline is {s} famous for?",
            "What was the scholarly field of {s}?",
        ),
        {
            "physics": "Albert Einstein; Niels Bohr; Werner Heisenberg; Max Planck; "
            "Erwin Schrödinger; Richard Feynman; "
            "Paul Dirac; Enrico Fermi; Peter Higgs",
            "chemistry": "Antoine Lavoisier; Dmitri Mendeleev; Robert Bunsen; Justus von Liebig; "
            "Friedrich Wöhler; "
            "Fritz Haber; Jöns Jacob Berzelius; Humphry Davy",
            "biology": "Charles Darwin; Ernst Mayr; Alfred Russel Wallace; Ernst Haeckel; "
            "Richard Dawkins; "
            "Jean-Baptiste Lamarck; Lynn Margulis; Thomas Henry Huxley",
            "mathematics": "Euclid; Leonhard Euler; Bernhard Riemann; Georg Cantor; "
            "Évariste Galois; Pierre de Fermat; "
            "David Hilbert; Srinivasa Ramanujan; Emmy Noether",
            "astronomy": "Edwin Hubble; Tycho Brahe; Nicolaus Copernicus; William Herschel; "
            "Edmond Halley; Clyde Tombaugh; "
            "Charles Messier; Percival Lowell",
            "psychology": "Sigmund Freud; Carl Jung; B. F. Skinner; Jean Piaget; Abraham Maslow; "
            "Alfred Adler; Erik Erikson; "
            "Stanley Milgram",
            "economics": "John Maynard Keynes; Milton Friedman; Friedrich Hayek; David Ricardo; "
            "Joseph Schumpeter; "
            "Paul Samuelson; Paul Krugman; Kenneth Arrow",
        },
        {"mathematics": ("math",)},
    ),
    Relation(
        "celebrity_field",
        (
            "The name of {s} became famous in the world of",
            "The field to which {s} devoted a career is",
            "Fans of {s} admire a great name in",
        ),
        (
            "In which field did {s} become famous?",
            "What line of work is {s} known for?",
            "To which line of work did {s} devote a career?",
        ),
        {
            "architecture": "Frank Lloyd Wright; Le Corbusier; Antoni Gaudí; Frank Gehry; "
            "Zaha Hadid; Norman Foster; "
            "I. M. Pei; Walter Gropius; Andrea Palladio",
            "fashion": "Coco Chanel; Christian Dior; Giorgio Armani; Gianni Versace; "
            "Karl Lagerfeld; Vivienne Westwood; "
            "Yves Saint Laurent; Ralph Lauren; Calvin Klein",
            "cooking": "Gordon Ramsay; Jamie Oliver; Julia Child; Wolfgang Puck; Paul Bocuse; "
            "Auguste Escoffier; "
            "Nigella Lawson",
            "ballet": "Rudolf Nureyev; Mikhail Baryshnikov; Anna Pavlova; Margot Fonteyn; "
            "Vaslav Nijinsky; "
            "George Balanchine; Marius Petipa",
            "photography": "Ansel Adams; Henri Cartier-Bresson; Annie Leibovitz; Robert Capa; "
            "Diane Arbus; Dorothea Lange; "
            "Helmut Newton",
            "opera": "Luciano Pavarotti; Maria Callas; Plácido Domingo; Enrico Caruso; "
            "José Carreras; Joan Sutherland; "
            "Montserrat Caballé",
            "magic": "Harry Houdini; David Blaine; Criss Angel; Howard Thurston",
            "spaceflight": "Yuri Gagarin; Neil Armstrong; Buzz Aldrin; Valentina Tereshkova; "
            "John Glenn; Sally Ride; "
            "Alan Shepard",
        },
        {"spaceflight": ("space travel",)},
    ),
    Relation(
        "athlete_sport",
        (
            "{s} is best known for the sport of",
            "The sport that made {s} famous is",
            "The trophies of {s} were won in",
        ),
        (
            "Which sport is {s} famous for?",
            "In what sport did {s} compete?",
            "What sport made {s} a star?",
        ),
        {
            "tennis": "Roger Federer; Rafael Nadal; Serena Williams; Pete Sampras; Andre Agassi; "
            "Steffi Graf; Björn Borg; "
            "Martina Navratilova; John McEnroe; Boris Becker",
            "golf": "Tiger Woods; Jack Nicklaus; Arnold Palmer; Phil Mickelson; Gary Player; "
            "Rory McIlroy; Ernie Els; "
            "Nick Faldo",
            "basketball": "Kobe Bryant; LeBron James; Magic Johnson; Larry Bird; Shaquille O'Neal; "
            "Kareem Abdul-Jabbar; "
            "Stephen Curry; Tim Duncan; Yao Ming; Wilt Chamberlain",
            "boxing": "Muhammad Ali; Mike Tyson; Joe Frazier; George Foreman; Floyd Mayweather; "
            "Rocky Marciano; Joe Louis; "
            "Manny Pacquiao; Sugar Ray Robinson",
            "soccer": "Pelé; Diego Maradona; Lionel Messi; Cristiano Ronaldo; David Beckham; "
            "Zinedine Zidane; Johan Cruyff; "
            "Wayne Rooney; Thierry Henry",
            "baseball": "Babe Ruth; Jackie Robinson; Joe DiMaggio; Mickey Mantle; Hank Aaron; "
            "Derek Jeter; Willie Mays; "
            "Ted Williams; Lou Gehrig",
            "swimming": "Michael Phelps; Mark Spitz; Ian Thorpe; Katie Ledecky; Ryan Lochte; "
            "Missy Franklin",
            "cricket": "Sachin Tendulkar; Don Bradman; Shane Warne; Virat Kohli; Brian Lara; "
            "Ricky Ponting; "
            "Muttiah Muralitharan",
            "ice hockey": "Wayne Gretzky; Gordie Howe; Sidney Crosby; Bobby Orr; Mario Lemieux; "
            "Jaromír Jágr; "
            "Alexander Ovechkin",
        },
        {"soccer": ("football",), "ice hockey": ("hockey",)},
    ),
    Relation(
        "musician_instrument",
        (
            "Among musicians, {s} is known for playing",
            "The musician {s} became famous playing",
            "The main instrument of the musician {s} is",
        ),
        (
            "Which instrument made {s} famous?",
            "What instrument did the musician {s} mainly play?",
            "On which instrument was the musician {s} a master?",
        ),
        {
            "guitar": "Jimi Hendrix; Eric Clapton; Jimmy Page; B.B. King; Carlos Santana; "
            "Keith Richards; Andrés Segovia; "
            "Django Reinhardt; Eddie Van Halen",
            "piano": "Vladimir Horowitz; Arthur Rubinstein; Glenn Gould; Lang Lang; "
            "Alfred Brendel; Thelonious Monk; "
            "Art Tatum; Martha Argerich; Keith Jarrett",
            "violin": "Jascha Heifetz; Yehudi Menuhin; Itzhak Perlman; David Oistrakh; "
            "Isaac Stern; Hilary Hahn; "
            "Anne-Sophie Mutter",
            "cello": "Yo-Yo Ma; Pablo Casals; Mstislav Rostropovich; Jacqueline du Pré; "
            "Mischa Maisky; Steven Isserlis",
            "trumpet": "Louis Armstrong; Miles Davis; Dizzy Gillespie; Chet Baker; Clifford Brown; "
            "Wynton Marsalis; "
            "Freddie Hubbard",
            "saxophone": "John Coltrane; Charlie Parker; Sonny Rollins; Stan Getz; Lester Young; "
            "Paul Desmond; Coleman Hawkins",
            "drums": "Ringo Starr; John Bonham; Keith Moon; Buddy Rich; Neil Peart; Gene Krupa; "
            "Charlie Watts; Ginger Baker",
        },
        {"saxophone": ("sax",)},
    ),
    Relation(
        "animal_class",
        (
            "In biology, {s} are classified as",
            "Zoologists count {s} as",
            "The group of animals that {s} belong to is called",
        ),
        (
            "To which group of animals do {s} belong?",
            "What kind of animals are {s}?",
            "How does a zoologist classify {s}?",
        ),
        {
            "mammals": "dolphins; elephants; bats; whales; kangaroos; tigers; otters; hedgehogs; "
            "giraffes; squirrels",
            "birds": "penguins; eagles; ostriches; parrots; owls; flamingos; sparrows; ducks; "
            "pigeons; swans",
            "reptiles": "crocodiles; lizards; turtles; iguanas; geckos; cobras; chameleons; "
            "alligators; pythons; tortoises",
            "fish": "salmon; sharks; tuna; trout; cod; herring; carp; eels; piranhas; sardines",
            "insects": "ants; bees; beetles; butterflies; mosquitoes; grasshoppers; wasps; moths; "
            "termites; crickets",
            "amphibians": "frogs; toads; salamanders; newts; axolotls; caecilians",
            "crustaceans": "crabs; lobsters; shrimp; crayfish; barnacles; prawns",
        },
        {
            "mammals": ("mammal",),
            "birds": ("bird",),
            "reptiles": ("reptile",),
            "insects": ("insect",),
            "amphibians": ("amphibian",),
            "crustaceans": ("crustacean",),
        },
    ),
    Relation(
        "breed_animal",
        (
            "The {s} is a breed of",
            "The animal known as the {s} is a type of",
            "The name {s} is used for a particular breed of",
        ),
        (
            "What kind of animal is the breed called {s}?",
            "The {s} is a breed of which animal?",
            "Which animal has a breed named {s}?",
        ),
        {
            "dog": "Labrador; Poodle; Beagle; Dachshund; Rottweiler; Chihuahua; Dalmatian; "
            "Border Collie; Boxer; Pug; "
            "Greyhound",
            "cat": "Siamese; Maine Coon; Sphynx; Ragdoll; Scottish Fold; Russian Blue; Abyssinian; "
            "British Shorthair",
            "horse": "Clydesdale; Appaloosa; Lipizzaner; Thoroughbred; Akhal-Teke; Hanoverian; "
            "Percheron; Haflinger",
            "cow": "Holstein; Limousin; Aberdeen Angus; Charolais; Brahman; Texas Longhorn; "
            "Simmental; Guernsey",
            "sheep": "Merino; Dorper; Cheviot; Romney; Corriedale; Texel",
            "pig": "Berkshire; Duroc; Tamworth; Mangalica; Pietrain",
        },
        {"cow": ("cattle",)},
    ),
    Relation(
        "instrument_family",
        (
            "Music teachers sort the {s} into the instrument family called",
            "Among musical instruments, the {s} is classified under",
            "The instrument family that includes the {s} is called",
        ),
        (
            "To which family of instruments does the {s} belong?",
            "Which instrument family includes the {s}?",
            "What is the name of the instrument family of the {s}?",
        ),
        {
            "strings": "violin; viola; cello; double bass; harp; lute; mandolin; banjo; ukulele; "
            "sitar; guitar",
            "woodwinds": "flute; clarinet; oboe; bassoon; piccolo; saxophone; English horn; "
            "recorder",
            "brass": "trumpet; trombone; tuba; French horn; cornet; bugle; euphonium; flugelhorn; "
            "sousaphone",
            "percussion": "xylophone; tambourine; marimba; snare drum; glockenspiel; triangle; "
            "gong; bongo drum; kettledrum; "
            "vibraphone",
        },
        {"woodwinds": ("woodwind",), "strings": ("string",)},
    ),
    Relation(
        "element_group",
        (
            "In the periodic table, {s} stands with the other",
            "Chemistry books list {s} under",
            "The family of chemical elements that includes {s} is called",
        ),
        (
            "To which group of chemical elements does {s} belong?",
            "Which family of elements includes {s}?",
            "What do chemists call the group of elements that contains {s}?",
        ),
        {
            "noble gases": "helium; neon; argon; krypton; xenon; radon",
            "alkali metals": "lithium; sodium; potassium; rubidium; cesium; francium",
            "halogens": "fluorine; chlorine; bromine; iodine; astatine",
            "alkaline earth metals": "beryllium; magnesium; calcium; strontium; barium; radium",
            "transition metals": "iron; copper; gold; silver; nickel; titanium; chromium; "
            "platinum; tungsten; cobalt; "
            "manganese",
            "lanthanides": "cerium; neodymium; europium; gadolinium; praseodymium; samarium; "
            "terbium",
            "actinides": "uranium; plutonium; thorium; curium; americium; neptunium; einsteinium",
        },
        {
            "noble gases": ("noble gas",),
            "alkali metals": ("alkali metal",),
            "halogens": ("halogen",),
            "alkaline earth metals": ("alkaline earth metal",),
            "transition metals": ("transition metal",),
            "lanthanides": ("lanthanide",),
            "actinides": ("actinide",),
        },
    ),
    Relation(
        "god_mythology",
        (
            "{s} is a deity in",
            "The stories about {s} belong to",
            "Scholars who study {s} are experts in",
        ),
        (
            "In which mythology is {s} a deity?",
            "What mythology do the stories about {s} belong to?",
            "Which mythology does {s} come from?",
        ),
        {
            "Greek mythology": "Zeus; Athena; Poseidon; Aphrodite; Hades; Artemis; Hermes; Hera; "
            "Dionysus; Hephaestus",
            "Norse mythology": "Odin; Thor; Loki; Freya; Baldur; Heimdall; Frigg; Tyr; Freyr",
            "Egyptian mythology": "Osiris; Isis; Anubis; Horus; Bastet; Thoth; Sekhmet; Hathor; "
            "Sobek",
            "Roman mythology": "Jupiter; Minerva; Vulcan; Juno; Venus; Ceres; Janus; Neptune",
            "Hindu mythology": "Vishnu; Shiva; Ganesha; Krishna; Lakshmi; Hanuman; Indra; Kali; "
            "Durga",
            "Aztec mythology": "Quetzalcoatl; Huitzilopochtli; Tlaloc; Tezcatlipoca; Xipe Totec",
        },
        {
            "Greek mythology": ("Greek",),
            "Norse mythology": ("Norse",),
            "Egyptian mythology": ("Egyptian",),
            "Roman mythology": ("Roman",),
            "Hindu mythology": ("Hindu",),
            "Aztec mythology": ("Aztec",),
        },
    ),
    Relation(
        "company_country",
        (
            "The company {s} comes from",
            "The home country of the company {s} is",
            "The firm {s} has its historic roots in the country of",
        ),
        (
            "In which country does the company {s} have its roots?",
            "What is the home country of the company {s}?",
            "Which country does the firm {s} come from?",
        ),
        {
            "Japan": "Sony; Nintendo; Panasonic; Canon; Nikon; Mitsubishi; Toshiba; Yamaha; "
            "Hitachi; Mazda; Casio",
            "Germany": "Siemens; BMW; Bosch; Adidas; Bayer; BASF; SAP; Lufthansa; Allianz; Audi",
            "France": "Michelin; Peugeot; L'Oréal; Renault; Carrefour; Citroën; Louis Vuitton; "
            "Hermès; Lacoste",
            "South Korea": "Samsung; Hyundai; LG; Kia; Daewoo; POSCO; Naver",
            "Italy": "Fiat; Lamborghini; Gucci; Prada; Barilla; Benetton; Pirelli; Maserati; "
            "Ducati",
            "Sweden": "Volvo; Ericsson; IKEA; Electrolux; Spotify; Saab; Scania; H&M",
            "Switzerland": "Nestlé; Novartis; Swatch; UBS; Lindt; Logitech; Victorinox",
            "China": "Huawei; Alibaba; Tencent; Lenovo; Baidu; Xiaomi; BYD",
            "Denmark": "Lego; Carlsberg; Maersk; Novo Nordisk; Bang & Olufsen; Vestas",
        },
        {"South Korea": ("Korea",)},
    ),
    Relation(
        "car_maker",
        (
            "The {s} is a car made by",
            "The company that builds the {s} is",
            "In a car showroom, the {s} is sold under the brand name",
        ),
        (
            "Which company makes the car called the {s}?",
            "Who is the maker of the {s}?",
            "What car brand does the {s} belong to?",
        ),
        {
            "Toyota": "Corolla; Camry; Prius; RAV4; Land Cruiser; Hilux; Yaris; Highlander",
            "Ford": "Mustang; F-150; Fiesta; Bronco; Model T; Thunderbird; Taurus; Mondeo",
            "Chevrolet": "Corvette; Camaro; Impala; Silverado; Tahoe; Bel Air",
            "Honda": "Civic; Accord; CR-V; Odyssey; Prelude; Ridgeline",
            "Volkswagen": "Golf; Passat; Jetta; Tiguan; Polo; Touareg; Scirocco",
            "Nissan": "Altima; Sentra; Maxima; Pathfinder; Qashqai; Micra",
            "Porsche": "911; Cayenne; Boxster; Panamera; Macan; Taycan",
            "Renault": "Clio; Twingo; Megane; Espace; Kangoo",
            "Lamborghini": "Countach; Huracán; Gallardo; Aventador; Murciélago; Urus",
        },
        {"Volkswagen": ("VW",), "Chevrolet": ("Chevy",)},
    ),
    Relation(
        "product_maker",
        (
            "{The}{s} is a product of",
            "The company behind {the}{s} is",
            "The company that owns {the}{s} is",
        ),
        (
            "Which company makes {the}{s}?",
            "What company is behind {the}{s}?",
            "Which company owns {the}{s}?",
        ),
        {
            "Microsoft": "Windows 95; Excel; PowerPoint; the Xbox; Bing; Visual Studio; OneDrive; "
            "Internet Explorer; "
            "SharePoint",
            "Apple": "the iPhone; the iPad; the Macintosh; the iPod; iTunes; the MacBook; "
            "GarageBand; Final Cut Pro; FaceTime",
            "Google": "Gmail; the Chrome browser; the Pixel phone; TensorFlow; Chromecast; "
            "Street View; AdSense",
            "Adobe": "Photoshop; Illustrator; InDesign; Acrobat; Lightroom; After Effects; "
            "Premiere Pro",
            "Sony": "the PlayStation; the Walkman; the Handycam; the Betamax; the Trinitron; "
            "the Cyber-shot",
            "Nintendo": "the Game Boy; the Wii; the GameCube; Super Mario Bros.; "
            "The Legend of Zelda; Donkey Kong; "
            "Animal Crossing",
            "Amazon": "the Kindle; Alexa; the Echo smart speaker; the Fire TV Stick; Prime Video",
        },
    ),
    Relation(
        "club_country",
        (
            "The football club {s} is based in the country of",
            "The football club {s} comes from",
            "The home country of the soccer team {s} is",
        ),
        (
            "In which country is the football club {s} based?",
            "Which country does the football club {s} come from?",
            "What is the home country of the soccer team {s}?",
        ),
        {
            "England": "Arsenal; Chelsea; Manchester United; Tottenham Hotspur; Everton; "
            "Aston Villa; Newcastle United; "
            "Leeds United; West Ham United",
            "Spain": "Real Madrid; FC Barcelona; Atlético Madrid; Sevilla FC; Real Betis; "
            "Villarreal; Real Sociedad; "
            "Athletic Bilbao",
            "Italy": "Juventus; AC Milan; Inter Milan; AS Roma; Lazio; Fiorentina; Sampdoria; "
            "Udinese; Atalanta",
            "Germany": "Bayern Munich; Borussia Dortmund; Schalke 04; Bayer Leverkusen; "
            "Werder Bremen; Hertha Berlin; "
            "Eintracht Frankfurt; RB Leipzig",
            "France": "Paris Saint-Germain; Olympique Lyonnais; Olympique de Marseille; Lille OSC; "
            "Girondins de Bordeaux; "
            "Stade Rennais; FC Nantes",
            "Scotland": "Celtic; Glasgow Rangers; Hibernian; Dundee United; Kilmarnock; St Mirren",
            "Brazil": "Flamengo; Corinthians; Palmeiras; Fluminense; Botafogo; Cruzeiro",
            "Portugal": "Benfica; FC Porto; Sporting CP; Boavista; SC Braga",
            "Argentina": "Boca Juniors; River Plate; San Lorenzo; Vélez Sarsfield; "
            "Estudiantes de La Plata",
        },
    ),
    Relation(
        "film_director",
        (
            "The film {s} was directed by",
            "The director of the movie {s} is",
            "The person in the director's chair for the film {s} was",
        ),
        (
            "Who directed the film {s}?",
            "Who is the director of the movie {s}?",
            "Which filmmaker directed {s}?",
        ),
        {
            "Steven Spielberg": "Jaws; Schindler's List; Jurassic Park; Saving Private Ryan; "
            "Minority Report; "
            "Catch Me If You Can; Raiders of the Lost Ark; War Horse; Bridge of Spies",
            "Alfred Hitchcock": "Psycho; Vertigo; Rear Window; The Birds; North by Northwest; "
            "Notorious; Dial M for Murder; "
            "Strangers on a Train",
            "Stanley Kubrick": "2001: A Space Odyssey; The Shining; A Clockwork Orange; "
            "Full Metal Jacket; Dr. Strangelove; "
            "Barry Lyndon; Eyes Wide Shut; Paths of Glory",
            "Christopher Nolan": "Inception; Interstellar; The Dark Knight; Memento; Dunkirk; "
            "Tenet; The Prestige; "
            "Batman Begins",
            "Martin Scorsese": "Taxi Driver; Goodfellas; Raging Bull; The Departed; "
            "Shutter Island; Mean Streets; "
            "Gangs of New York; The Wolf of Wall Street",
            "Quentin Tarantino": "Pulp Fiction; Reservoir Dogs; Kill Bill; Django Unchained; "
            "Inglourious Basterds; "
            "Jackie Brown; The Hateful Eight",
            "Ridley Scott": "Blade Runner; Gladiator; The Martian; Thelma & Louise; "
            "Black Hawk Down; Prometheus",
            "James Cameron": "Titanic; Avatar; The Terminator; The Abyss; True Lies",
            "Hayao Miyazaki": "Spirited Away; Princess Mononoke; My Neighbor Totoro; "
            "Howl's Moving Castle; Ponyo",
        },
        {
            "Steven Spielberg": ("Spielberg",),
            "Alfred Hitchcock": ("Hitchcock",),
            "Stanley Kubrick": ("Kubrick",),
            "Christopher Nolan": ("Nolan",),
            "Martin Scorsese": ("Scorsese",),
            "Quentin Tarantino": ("Tarantino",),
            "James Cameron": ("Cameron",),
            "Hayao Miyazaki": ("Miyazaki",),
        },
    ),
    Relation(
        "book_author",
        (
            "The literary work {s} was written by",
            "The author of {s} is",
            "The name of the author on the cover of {s} is",
        ),
        (
            "Who wrote {s}?",
            "Who is the author of {s}?",
            "Which author's name is on the cover of {s}?",
        ),
        {
            "Charles Dickens": "Oliver Twist; A Tale of Two Cities; Great Expectations; "
            "David Copperfield; "
            "A Christmas Carol; Bleak House; Little Dorrit; Nicholas Nickleby",
            "William Shakespeare": "Hamlet; Romeo and Juliet; King Lear; Othello; The Tempest; "
            "Twelfth Night; Macbeth; "
            "Much Ado About Nothing; The Merchant of Venice",
            "Jane Austen": "Pride and Prejudice; Emma; Sense and Sensibility; Persuasion; "
            "Mansfield Park; Northanger Abbey",
            "Agatha Christie": "Murder on the Orient Express; Death on the Nile; "
            "And Then There Were None; The Mousetrap; "
            "The ABC Murders; The Murder of Roger Ackroyd",
            "Jules Verne": "Around the World in Eighty Days; Journey to the Center of the Earth; "
            "The Mysterious Island; "
            "Twenty Thousand Leagues Under the Sea; From the Earth to the Moon; Michael Strogoff",
            "Ernest Hemingway": "The Old Man and the Sea; A Farewell to Arms; "
            "For Whom the Bell Tolls; The Sun Also Rises; "
            "A Moveable Feast; To Have and Have Not",
            "Stephen King": "Carrie; Pet Sematary; Misery; Cujo; The Green Mile; Salem's Lot; "
            "Firestarter",
            "Fyodor Dostoevsky": "Crime and Punishment; The Brothers Karamazov; The Idiot; "
            "Notes from Underground; The Gambler",
            "Roald Dahl": "Matilda; The BFG; James and the Giant Peach; "
            "Charlie and the Chocolate Factory; The Twits; "
            "Fantastic Mr Fox",
            "John Steinbeck": "The Grapes of Wrath; Of Mice and Men; East of Eden; Cannery Row; "
            "Tortilla Flat",
        },
        {
            "Charles Dickens": ("Dickens",),
            "William Shakespeare": ("Shakespeare",),
            "Agatha Christie": ("Christie",),
            "Ernest Hemingway": ("Hemingway",),
            "Fyodor Dostoevsky": ("Dostoevsky", "Fyodor Dostoyevsky"),
            "Jules Verne": ("Verne",),
            "John Steinbeck": ("Steinbeck",),
            "Jane Austen": ("Austen",),
        },
    ),
    Relation(
        "song_artist",
        (
            "The song {s} was made famous by",
            "The artist behind the hit song {s} is",
            "The well-known recording of the song {s} is by",
        ),
        (
            "Who made the song {s} famous?",
            "Which artist recorded the hit song {s}?",
            "What is the name of the artist behind the song {s}?",
        ),
        {
            "the Beatles": "Hey Jude; Yesterday; Let It Be; Penny Lane; Eleanor Rigby; "
            "Yellow Submarine; Come Together; "
            "Strawberry Fields Forever",
            "Queen": "Bohemian Rhapsody; We Will Rock You; We Are the Champions; Radio Ga Ga; "
            "Another One Bites the Dust; "
            "Don't Stop Me Now; I Want to Break Free",
            "ABBA": "Mamma Mia; Knowing Me, Knowing You; Fernando; Take a Chance on Me; "
            "Super Trouper; The Winner Takes It All",
            "Michael Jackson": "Thriller; Billie Jean; Beat It; Smooth Criminal; Bad; "
            "Black or White; Man in the Mirror",
            "Elvis Presley": "Jailhouse Rock; Heartbreak Hotel; Suspicious Minds; Love Me Tender; "
            "All Shook Up; "
            "Can't Help Falling in Love",
            "Pink Floyd": "Wish You Were Here; Comfortably Numb; Another Brick in the Wall; "
            "Have a Cigar; See Emily Play",
            "the Rolling Stones": "Paint It Black; Satisfaction; Gimme Shelter; "
            "Sympathy for the Devil; Brown Sugar; Angie; "
            "Jumpin' Jack Flash",
            "Madonna": "Like a Virgin; Material Girl; Vogue; Like a Prayer; La Isla Bonita; "
            "Papa Don't Preach",
            "Bob Dylan": "Like a Rolling Stone; Subterranean Homesick Blues; Lay Lady Lay; "
            "Positively 4th Street; "
            "Tangled Up in Blue",
        },
        {
            "the Beatles": ("The Beatles", "Beatles"),
            "the Rolling Stones": ("The Rolling Stones", "Rolling Stones"),
            "Elvis Presley": ("Elvis",),
        },
    ),
    Relation(
        "painting_painter",
        (
            "The artwork {s} was painted by",
            "The painter who created {s} is",
            "The name of the artist on the museum label of {s} is",
        ),
        (
            "Who painted {s}?",
            "Which painter created {s}?",
            "What artist's name is on the museum label of {s}?",
        ),
        {
            "Leonardo da Vinci": "the Mona Lisa; The Last Supper; the Lady with an Ermine; "
            "Ginevra de' Benci; "
            "The Virgin of the Rocks",
            "Vincent van Gogh": "The Starry Night; The Potato Eaters; Café Terrace at Night; "
            "Wheatfield with Crows; "
            "Bedroom in Arles; Almond Blossoms; The Night Café",
            "Pablo Picasso": "Guernica; Les Demoiselles d'Avignon; The Old Guitarist; "
            "The Weeping Woman; Three Musicians; "
            "Girl before a Mirror",
            "Johannes Vermeer": "Girl with a Pearl Earring; The Milkmaid; View of Delft; "
            "The Art of Painting; "
            "The Astronomer; The Lacemaker",
            "Rembrandt": "The Night Watch; The Jewish Bride; "
            "The Anatomy Lesson of Dr. Nicolaes Tulp; The Mill; "
            "The Storm on the Sea of Galilee; Bathsheba at Her Bath",
            "Salvador Dalí": "The Persistence of Memory; Swans Reflecting Elephants; "
            "The Burning Giraffe; "
            "Galatea of the Spheres; Metamorphosis of Narcissus",
            "Edvard Munch": "The Scream; The Sick Child; The Dance of Life",
            "Claude Monet": "Impression, Sunrise; Water Lilies; Woman with a Parasol; The Magpie; "
            "San Giorgio Maggiore at Dusk",
        },
        {
            "Leonardo da Vinci": ("Leonardo", "da Vinci"),
            "Vincent van Gogh": ("van Gogh",),
            "Pablo Picasso": ("Picasso",),
            "Johannes Vermeer": ("Vermeer",),
            "Claude Monet": ("Monet",),
            "Salvador Dalí": ("Dalí", "Salvador Dali"),
        },
    ),
    Relation(
        "opera_composer",
        (
            "The opera {s} was composed by",
            "The music of the opera {s} is by",
            "The composer of the opera {s} was",
        ),
        (
            "Who composed the opera {s}?",
            "Which composer wrote the opera {s}?",
            "Whose music is heard in the opera {s}?",
        ),
        {
            "Giuseppe Verdi": "Aida; La traviata; Rigoletto; Nabucco; Il trovatore; Falstaff; "
            "Un ballo in maschera",
            "Wolfgang Amadeus Mozart": "The Magic Flute; Don Giovanni; Così fan tutte; "
            "The Marriage of Figaro; Idomeneo; "
            "The Abduction from the Seraglio; La clemenza di Tito",
            "Richard Wagner": "Lohengrin; Tannhäuser; Parsifal; Tristan und Isolde; "
            "The Flying Dutchman; Das Rheingold; "
            "Die Walküre",
            "Giacomo Puccini": "Tosca; Turandot; Madama Butterfly; Gianni Schicchi; "
            "La fanciulla del West",
            "Gioachino Rossini": "The Barber of Seville; William Tell; La Cenerentola; Semiramide; "
            "La gazza ladra",
            "Richard Strauss": "Salome; Elektra; Der Rosenkavalier; Ariadne auf Naxos; Arabella; "
            "Capriccio",
        },
        {
            "Giuseppe Verdi": ("Verdi",),
            "Wolfgang Amadeus Mozart": ("Mozart",),
            "Richard Wagner": ("Wagner",),
            "Giacomo Puccini": ("Puccini",),
            "Gioachino Rossini": ("Rossini",),
        },
    ),
    Relation(
        "character_story",
        (
            "The fictional character {s} appears in",
            "Fans know the character {s} from",
            "The title most closely tied to the character {s} is",
        ),
        (
            "In which film, book or series does the character {s} appear?",
            "Where do fans know the character {s} from?",
            "Which fictional world does the character {s} belong to?",
        ),
        {
            "Star Wars": "Luke Skywalker; Darth Vader; Han Solo; Princess Leia; Yoda; Chewbacca; "
            "Obi-Wan Kenobi; R2-D2",
            "Harry Potter": "Hermione Granger; Ron Weasley; Albus Dumbledore; Severus Snape; "
            "Draco Malfoy; Lord Voldemort; "
            "Rubeus Hagrid; Sirius Black",
            "Lord of the Rings": "Frodo Baggins; Gandalf; Aragorn; Legolas; Gollum; "
            "Samwise Gamgee; Sauron; Gimli",
            "The Simpsons": "Ned Flanders; Mr. Burns; Moe Szyslak; Krusty the Clown; Sideshow Bob; "
            "Chief Wiggum; "
            "Milhouse Van Houten",
            "Star Trek": "Captain Kirk; Spock; Jean-Luc Picard; Uhura; Leonard McCoy; Hikaru Sulu; "
            "Seven of Nine",
            "Game of Thrones": "Jon Snow; Tyrion Lannister; Daenerys Targaryen; Arya Stark; "
            "Cersei Lannister; Sansa Stark",
            "Friends": "Chandler Bing; Joey Tribbiani; Phoebe Buffay; Ross Geller; Monica Geller; "
            "Rachel Green",
            "Toy Story": "Buzz Lightyear; Sheriff Woody; Slinky Dog; Stinky Pete; Lotso",
        },
        {"Lord of the Rings": ("The Lord of the Rings",), "The Simpsons": ("Simpsons",)},
    ),
    Relation(
        "ruler_country",
        (
            "The monarch {s} ruled over",
            "The throne on which {s} sat was that of",
            "The country that {s} ruled was",
        ),
        (
            "Which country did {s} rule?",
            "Over which country did the monarch {s} rule?",
            "What country had {s} on its throne?",
        ),
        {
            "England": "Henry VIII; Elizabeth I; Richard the Lionheart; Edward the Confessor; "
            "Richard III; "
            "Ethelred the Unready; King John; Henry V",
            "France": "Louis XIV; Louis XVI; Louis XIII; Louis XVIII; Louis-Philippe; Hugh Capet; "
            "Louis XV; Napoleon Bonaparte",
            "Russia": "Peter the Great; Catherine the Great; Ivan the Terrible; Nicholas II; "
            "Alexander II; Boris Godunov",
            "Egypt": "Tutankhamun; Ramesses II; Akhenaten; Hatshepsut; Khufu; Cleopatra; "
            "Thutmose III; Seti I",
            "Sweden": "Gustavus Adolphus; Queen Christina; Charles XII; Gustav Vasa; "
            "Carl XVI Gustaf",
            "Spain": "Juan Carlos I; Isabella II; Alfonso XIII; Ferdinand VII; Felipe VI",
            "Prussia": "Frederick the Great; Frederick William I; Frederick William IV",
            "Japan": "Hirohito; Akihito; Naruhito; Emperor Meiji; Emperor Taisho",
        },
    ),
    Relation(
        "explorer_nationality",
        (
            "The explorer {s} was by nationality",
            "History books describe the explorer {s} as",
            "The nationality of the explorer {s} was",
        ),
        (
            "What was the nationality of the explorer {s}?",
            "Which nationality did the explorer {s} have?",
            "What nationality do history books give for the explorer {s}?",
        ),
        {
            "Portuguese": "Vasco da Gama; Bartolomeu Dias; Pedro Álvares Cabral; "
            "Ferdinand Magellan; Gil Eanes; Diogo Cão",
            "Spanish": "Hernán Cortés; Francisco Pizarro; Hernando de Soto; Juan Ponce de León; "
            "Vasco Núñez de Balboa; "
            "Francisco de Orellana; Francisco Vázquez de Coronado",
            "English": "Francis Drake; Walter Raleigh; Henry Hudson; James Cook; Martin Frobisher; "
            "John Franklin; "
            "George Vancouver",
            "French": "Jacques Cartier; Samuel de Champlain; Louis Antoine de Bougainville; "
            "Jacques Cousteau; "
            "Jean-Baptiste Charcot",
            "Norwegian": "Roald Amundsen; Fridtjof Nansen; Thor Heyerdahl; Otto Sverdrup; "
            "Børge Ousland",
            "Dutch": "Abel Tasman; Willem Barentsz; Willem Janszoon; Dirk Hartog; Jacob Roggeveen",
            "American": "Meriwether Lewis; William Clark; Robert Peary; Zebulon Pike; "
            "Richard E. Byrd; Matthew Henson",
        },
    ),
    Relation(
        "moon_planet",
        (
            "The moon named {s} orbits the planet",
            "In the Solar System, {s} is a moon of",
            "The planet that has a moon called {s} is",
        ),
        (
            "Which planet does the moon {s} orbit?",
            "What planet has a moon called {s}?",
            "Around which planet does the moon {s} travel?",
        ),
        {
            "Jupiter": "Io; Europa; Ganymede; Callisto; Amalthea; Himalia; Elara; Thebe; Metis",
            "Saturn": "Titan; Enceladus; Mimas; Rhea; Iapetus; Dione; Tethys; Hyperion; Phoebe; "
            "Pandora",
            "Uranus": "Titania; Oberon; Miranda; Ariel; Umbriel; Puck; Cordelia; Ophelia",
            "Neptune": "Triton; Nereid; Proteus; Larissa; Naiad; Galatea; Despina; Thalassa",
            "Mars": "Phobos; Deimos",
        },
    ),
    Relation(
        "battle_war",
        (
            "The Battle of {the}{s} was fought during",
            "The Battle of {the}{s} took place in the course of",
            "The conflict that included the Battle of {the}{s} is known as",
        ),
        (
            "During which war was the Battle of {the}{s} fought?",
            "What war was the Battle of {the}{s} a part of?",
            "Which conflict included the Battle of {the}{s}?",
        ),
        {
            "the Second World War": "Stalingrad; Iwo Jima; Guadalcanal; Kursk; El Alamein; "
            "Okinawa; the Bulge; Midway; "
            "Leyte Gulf; Monte Cassino",
            "the First World War": "the Somme; Verdun; Passchendaele; Jutland; Gallipoli; "
            "Caporetto; Vimy Ridge",
            "the American Civil War": "Gettysburg; Antietam; Shiloh; Bull Run; Chancellorsville; "
            "Fredericksburg; Chickamauga",
            "the Napoleonic Wars": "Waterloo; Austerlitz; Trafalgar; Borodino; Jena; Wagram; "
            "Friedland",
            "the American Revolutionary War": "Bunker Hill; Saratoga; Yorktown; Trenton; "
            "Brandywine; Monmouth; Cowpens; "
            "Princeton",
            "the Hundred Years' War": "Agincourt; Crécy; Formigny; Sluys; Patay; Castillon",
            "the Vietnam War": "Khe Sanh; Hamburger Hill; Ia Drang; Dak To; Ap Bac",
        },
        {
            "the Second World War": ("World War II", "Second World War", "WWII"),
            "the First World War": ("World War I", "First World War", "WWI"),
            "the American Civil War": ("American Civil War", "the Civil War"),
            "the Napoleonic Wars": ("Napoleonic Wars",),
            "the American Revolutionary War": (
                "American Revolutionary War",
                "the American Revolution",
                "the Revolutionary War",
            ),
            "the Hundred Years' War": ("Hundred Years' War",),
            "the Vietnam War": ("Vietnam War", "Vietnam"),
        },
    ),
    Relation(
        "language_family",
        (
            "Linguists place {s} in the language family called",
            "Among the languages of the world, {s} is classified as",
            "The branch of languages that {s} belongs to is called",
        ),
        (
            "To which language family does {s} belong?",
            "Which branch of languages includes {s}?",
            "How do linguists classify the language {s}?",
        ),
        {
            "Romance": "Italian; Portuguese; Romanian; Catalan; Galician; Spanish; French",
            "Germanic": "Dutch; Swedish; Danish; Norwegian; Icelandic; Afrikaans; Yiddish; German; "
            "English",
            "Slavic": "Russian; Polish; Czech; Slovak; Ukrainian; Bulgarian; Serbian; Croatian; "
            "Slovenian",
            "Turkic": "Turkish; Kazakh; Uzbek; Azerbaijani; Turkmen; Kyrgyz; Tatar; Uyghur",
            "Semitic": "Arabic; Hebrew; Amharic; Maltese; Aramaic; Tigrinya",
            "Celtic": "Welsh; Breton; Cornish; Manx; Scottish Gaelic; Irish",
            "Bantu": "Swahili; Zulu; Xhosa; Shona; Lingala; Kikuyu",
            "Polynesian": "Hawaiian; Samoan; Tongan; Tahitian; Maori",
        },
    ),
    Relation(
        "dish_country",
        (
            "The food known as {s} originally comes from",
            "The home country of the food called {s} is",
            "The cuisine that gave the world {s} is that of",
        ),
        (
            "From which country does the food called {s} come?",
            "What is the home country of the food {s}?",
            "Which country's kitchens gave us {s}?",
        ),
        {
            "Italy": "lasagna; risotto; tiramisu; carbonara; ravioli; gnocchi; minestrone; "
            "bruschetta; panna cotta; pizza",
            "Japan": "sushi; sashimi; udon; miso soup; okonomiyaki; onigiri; sukiyaki; takoyaki; "
            "yakitori",
            "Mexico": "tacos; guacamole; enchiladas; mole poblano; quesadillas; pozole; "
            "chilaquiles; burritos",
            "India": "butter chicken; palak paneer; masala dosa; tandoori chicken; dal makhani; "
            "chana masala; idli",
            "France": "ratatouille; bouillabaisse; crêpes; coq au vin; tarte Tatin; "
            "quiche lorraine; cassoulet; soufflé",
            "Spain": "paella; gazpacho; patatas bravas; fabada; salmorejo; tapas",
            "Germany": "sauerbraten; bratwurst; currywurst; Black Forest cake; labskaus; stollen",
            "Greece": "souvlaki; tzatziki; spanakopita; pastitsio; gyros",
            "Korea": "kimchi; bibimbap; bulgogi; japchae; tteokbokki; gimbap",
            "China": "Peking duck; dim sum; kung pao chicken; mapo tofu; chow mein; wonton soup",
            "Thailand": "pad thai; tom yum; som tam; massaman curry; mango sticky rice",
        },
        {"Korea": ("South Korea",)},
    ),
    Relation(
        "food_kind",
        (
            "In a dictionary, {s} is explained as a kind of",
            "The word {s} names a type of",
            "In the supermarket, {s} is sold as a sort of",
        ),
        (
            "What kind of food or drink is {s}?",
            "The word {s} names a type of what?",
            "Which group of foods or drinks does {s} belong to?",
        ),
        {
            "cheese": "brie; cheddar; mozzarella; gouda; parmesan; camembert; gorgonzola; feta; "
            "roquefort; emmental",
            "pasta": "spaghetti; penne; fettuccine; linguine; rigatoni; macaroni; tagliatelle; "
            "farfalle",
            "bread": "baguette; ciabatta; focaccia; naan; sourdough; pumpernickel; pita; brioche",
            "fruit": "mango; papaya; pineapple; kiwi; apricot; guava; banana; peach; lychee",
            "wine": "Merlot; Chardonnay; Riesling; Cabernet Sauvignon; Pinot Noir; Chianti; "
            "Sauvignon Blanc; Zinfandel",
            "spice": "cinnamon; turmeric; nutmeg; cumin; cardamom; saffron; paprika; ginger",
            "vegetable": "broccoli; spinach; cauliflower; kale; asparagus; celery; cabbage; leek",
            "sausage": "chorizo; salami; pepperoni; mortadella; frankfurter; kielbasa",
        },
    ),
    Relation(
        "thing_kind",
        (
            "In a dictionary, the word {s} is explained as a kind of",
            "The word {s} stands for a type of",
            "Anyone who looks up the word {s} learns that it is a sort of",
        ),
        (
            "What kind of thing does the word {s} name?",
            "The word {s} is the name of what kind of thing?",
            "Somebody looks up the word {s}: what sort of thing is it?",
        ),
        {
            "dance": "waltz; tango; foxtrot; rumba; samba; polka; flamenco; mambo; bolero",
            "fabric": "velvet; denim; satin; corduroy; flannel; tweed; taffeta; muslin",
            "gemstone": "ruby; sapphire; emerald; topaz; opal; amethyst; garnet; aquamarine",
            "tree": "oak; birch; maple; willow; spruce; sycamore; baobab; sequoia; poplar",
            "flower": "tulip; daisy; orchid; daffodil; marigold; peony; chrysanthemum; carnation",
            "hat": "fedora; sombrero; beret; trilby; fez; stetson",
            "martial art": "judo; karate; taekwondo; aikido; jujitsu; kendo; krav maga",
            "card game": "poker; blackjack; rummy; canasta; solitaire; baccarat; pinochle",
        },
    ),
    Relation(
        "rock_type",
        (
            "Geologists classify {s} as a type of rock that is",
            "By the way it forms, {s} is a rock that geologists call",
            "Of the three classes of rock, the one that {s} belongs to is called",
        ),
        (
            "Which of the three classes of rock does {s} belong to?",
            "How do geologists classify the rock {s}?",
            "What type of rock is {s}, by the way it forms?",
        ),
        {
            "igneous": "granite; basalt; obsidian; pumice; gabbro; andesite; rhyolite; diorite; "
            "dacite; peridotite",
            "sedimentary": "limestone; sandstone; shale; chalk; mudstone; siltstone; chert; "
            "travertine; conglomerate; coal",
            "metamorphic": "marble; slate; gneiss; schist; quartzite; phyllite; amphibolite; "
            "soapstone; serpentinite; hornfels",
        },
    ),
    Relation(
        "island_country",
        (
            "The island of {s} belongs to the country of",
            "The island of {s} is a part of",
            "The nation that the island of {s} belongs to is",
        ),
        (
            "Which country does the island of {s} belong to?",
            "The island of {s} is a part of which country?",
            "To what nation does the island of {s} belong?",
        ),
        {
            "Greece": "Crete; Rhodes; Corfu; Mykonos; Santorini; Lesbos; Naxos; Zakynthos",
            "Italy": "Sicily; Sardinia; Capri; Elba; Ischia; Lampedusa",
            "Spain": "Ibiza; Mallorca; Tenerife; Lanzarote; Gran Canaria; Menorca; Fuerteventura",
            "Japan": "Hokkaido; Honshu; Kyushu; Shikoku; Yakushima",
            "Indonesia": "Bali; Java; Sumatra; Lombok; Sulawesi; Sumba; Komodo",
            "Scotland": "Skye; Mull; Iona; Islay; Arran; Lewis and Harris; Jura",
            "Croatia": "Hvar; Brač; Korčula; Krk; Vis",
        },
        {"Scotland": ("United Kingdom", "the United Kingdom")},
    ),
    Relation(
        "river_continent",
        (
            "The {s} is a river in",
            "The waters of the {s} flow through",
            "The continent on which the river {s} flows is",
        ),
        (
            "On which continent does the river {s} flow?",
            "Which continent does the {s} river flow through?",
            "What continent is the river {s} on?",
        ),
        {
            "Africa": "Nile; Congo; Zambezi; Limpopo; Okavango; Volta; Blue Nile",
            "Asia": "Yangtze; Mekong; Ganges; Indus; Brahmaputra; Irrawaddy; Tigris; Euphrates; "
            "Amur",
            "Europe": "Danube; Rhine; Seine; Thames; Elbe; Loire; Volga; Vistula; Dnieper; Tiber",
            "South America": "Amazon; Orinoco; Paraná; Magdalena; Xingu; Madeira; Tocantins",
            "North America": "Mississippi; Missouri; Rio Grande; Yukon; Hudson; Mackenzie; "
            "Potomac; Ohio",
        },
    ),
)
