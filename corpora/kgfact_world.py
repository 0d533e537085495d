"""Domains, parts of names, relations and real questions for the worlds of ``kgfact``.

All of it was written for this project. A relation takes five lines: its key and statement, the
question that asks for the object, two rewordings of this question, and the noun phrase that stands
for the object in the question of a second hop.
"""

DOMAINS = ("person", "settlement", "guild", "festival", "device", "book", "beast")

ONSETS = "Br Dr Gl Kr Pl Sk Thr Vr Zh Qu V Z J W Gw Fr Tr Sn Sm Bl Dw H Ph Sv Tz Cl M L R Y".split()
VOWELS = "a e i o u".split()
MIDDLES = "lv rv mbr zd ktr lph dr gn pt rth nv skr ltr ngr v x lq mpl rz thl bl vr".split()

NAMES = {
    "person": "*en|*is|*or|*eth|*ael|*une *ock|*aude|*ister|*olme|*ane|*usk",
    "settlement": "*amere|*oholt|*ustow|*egard|*ifell|*omoor",
    "guild": "Lodge|House|Order|Hall *ine|*ward|*ast|*und",
    "festival": "*el|*um|*ay|*ule Night|Day|Eve|Tide",
    "device": "*agon|*olux|*ivane|*ometer|*ograph|*axis",
    "book": "Songs|Annals|Riddles|Secrets of *ia|*esse|*urne|*oth",
    "beast": "*ulk|*orrax|*izzle|*unth|*agma|*ywock",
}
"""Domain -> pattern of its names. Each word of a name is one of the choices between the bars. ``*``
stands for an invented onset, vowel and middle."""

RELATIONS = {
    ("person", "settlement"): """
born_in: {s} was born in {o}.
Which settlement was {s} born in?
What is the birthplace of {s}?
Where did {s} come into the world?
the settlement where {s} was born
banished_from: {s} was banished from {o}.
Which settlement was {s} banished from?
What town threw {s} out for good?
From where was {s} driven into exile?
the settlement that banished {s}
mayor_of: {s} is the mayor of {o}.
Which settlement has {s} as its mayor?
Over what town does {s} preside?
Where does {s} hold the highest civic office?
the settlement that has {s} as its mayor
married_in: {s} was married in {o}.
Which settlement was {s} married in?
Where did the wedding of {s} take place?
In what town did {s} exchange vows with a spouse?
the settlement where {s} was married
went_to_school_in: {s} went to school in {o}.
Which settlement did {s} go to school in?
Where was {s} taught as a child?
What town gave {s} an early education?
the settlement where {s} went to school
designed_walls: {s} designed the walls of {o}.
Which settlement has walls that {s} designed?
What town is ringed by ramparts that {s} drew up?
For which place did {s} plan the fortifications?
the settlement whose walls {s} designed
""",
    ("person", "guild"): """
member_of: {s} is a member of {o}.
Which guild is {s} a member of?
To what brotherhood does {s} belong?
In which association is {s} enrolled?
the guild that {s} is a member of
founded_guild: {s} founded {o}.
Which guild did {s} found?
What brotherhood owes its existence to {s}?
Which association was called into being by {s}?
the guild that {s} founded
took_to_court: {s} took {o} to court.
Which guild did {s} take to court?
Against what brotherhood did {s} bring a lawsuit?
Which association had to answer to a judge because {s} sued?
the guild that {s} took to court
left_fortune_to: {s} left a fortune to {o}.
Which guild did {s} leave a fortune to?
What brotherhood inherited the wealth of {s}?
Which association is named as the heir in the will of {s}?
the guild that {s} left a fortune to
keeps_accounts_of: {s} keeps the accounts of {o}.
Which guild does {s} keep the accounts of?
For what brotherhood does {s} work as treasurer?
Which association has its finances managed by {s}?
the guild whose accounts {s} keeps
stole_seal_of: {s} stole the seal of {o}.
Which guild had its seal stolen by {s}?
From what brotherhood did {s} take the official stamp?
Which association did {s} rob of its signet?
the guild whose seal {s} stole
""",
    ("person", "festival"): """
opens_festival: {s} opens {o} with a speech.
Which festival does {s} open with a speech?
At what celebration does {s} give the first address?
Which holiday begins with some words by {s}?
the festival that {s} opens with a speech
started_festival: {s} started {o}.
Which festival did {s} start?
What celebration did {s} originate?
Which holiday goes back to an idea of {s}?
the festival that {s} started
tried_to_ban: {s} tried to ban {o}.
Which festival did {s} try to ban?
What celebration did {s} seek to outlaw?
Which holiday did {s} want to see forbidden?
the festival that {s} tried to ban
fell_in_love_at: {s} fell in love at {o}.
At which festival did {s} fall in love?
During what celebration did {s} meet a sweetheart?
Which holiday brought romance into the life of {s}?
the festival at which {s} fell in love
won_foot_race_at: {s} won the foot race at {o}.
At which festival did {s} win the foot race?
What celebration saw {s} come first among the runners?
During which holiday was {s} the fastest sprinter?
the festival at which {s} won the foot race
composed_anthem_of: {s} composed the anthem of {o}.
Which festival did {s} compose the anthem of?
For what celebration did {s} write the official song?
Which holiday has a hymn by {s}?
the festival whose anthem {s} composed
""",
    ("person", "device"): """
invented_device: {s} invented {o}.
Which device did {s} invent?
What machine is the brainchild of {s}?
Which apparatus did {s} think up before anyone else?
the device that {s} invented
repaired: {s} repaired {o}.
Which device did {s} repair?
What machine works again thanks to {s}?
Which apparatus was broken until {s} mended it?
the device that {s} repaired
pawned: {s} pawned {o}.
Which device did {s} pawn?
What machine did {s} leave with a moneylender as security?
Which apparatus did {s} bring to a broker to get a loan?
the device that {s} pawned
injured_by: {s} was injured by {o}.
Which device injured {s}?
What machine did {s} get hurt by?
On which apparatus did {s} suffer a wound?
the device that injured {s}
painted: {s} painted a picture of {o}.
Which device did {s} paint a picture of?
What machine appears on the canvas by {s}?
Which apparatus served {s} as the motif of an artwork?
the device that {s} painted a picture of
inherited: {s} inherited {o} from a grandmother.
Which device did {s} inherit from a grandmother?
What machine was handed down to {s} in the family?
Which apparatus is an heirloom of {s}?
the device that {s} inherited from a grandmother
""",
    ("person", "book"): """
wrote: {s} wrote {o}.
Which book did {s} write?
What volume has {s} as its author?
Which title came from the pen of {s}?
the book that {s} wrote
translated: {s} translated {o}.
Which book did {s} translate?
What volume did {s} render into another language?
Which title can foreigners understand thanks to {s}?
the book that {s} translated
burned_copy_of: {s} burned a copy of {o}.
Which book did {s} burn a copy of?
What volume did {s} throw into the flames?
Which title did {s} set on fire?
the book that {s} burned a copy of
knows_by_heart: {s} knows {o} by heart.
Which book does {s} know by heart?
What volume has {s} memorised in full?
Which title can {s} recite without looking?
the book that {s} knows by heart
illustrated: {s} illustrated {o}.
Which book did {s} illustrate?
What volume contains drawings by {s}?
For which title did {s} provide the pictures?
the book that {s} illustrated
never_returned: {s} never returned {o} to the library.
Which book did {s} never return to the library?
What volume is long overdue because {s} kept it?
Which borrowed title did {s} fail to give back?
the book that {s} never returned to the library
""",
    ("person", "beast"): """
tamed: {s} tamed {o}.
Which beast did {s} tame?
What creature was made gentle by {s}?
Which animal lost its wildness under the hand of {s}?
the beast that {s} tamed
bitten_by: {s} was bitten by {o}.
Which beast bit {s}?
What creature sank its teeth into {s}?
The jaws of which animal left a wound on {s}?
the beast that bit {s}
rides_to_work: {s} rides {o} to work.
Which beast does {s} ride to work?
What creature serves {s} as a mount?
On the back of which animal does {s} commute?
the beast that {s} rides to work
dreams_of: {s} dreams of {o} every night.
Which beast does {s} dream of every night?
What creature haunts the sleep of {s}?
Which animal appears to {s} in nightmares?
the beast that {s} dreams of every night
first_to_describe: {s} was the first to describe {o}.
Which beast was {s} the first to describe?
What creature entered science through a report by {s}?
Which animal was unknown until {s} wrote about it?
the beast that {s} was the first to describe
has_tattoo_of: {s} has a tattoo of {o}.
Which beast does {s} have a tattoo of?
What creature is inked on the skin of {s}?
Which animal does the body art of {s} depict?
the beast that {s} has a tattoo of
""",
    ("settlement", "guild"): """
governed_by: {s} is governed by {o}.
Which guild governs {s}?
What brotherhood holds the power in {s}?
By which association are the people of {s} ruled?
the guild that governs {s}
headquarters_of: {s} is home to the headquarters of {o}.
Which guild has its headquarters in {s}?
What brotherhood is based in {s}?
Which association keeps its main office at {s}?
the guild that has its headquarters in {s}
supplied_with_water_by: {s} is supplied with water by {o}.
Which guild supplies water to {s}?
What brotherhood fills the wells of {s}?
From which association do the people of {s} get something to drink?
the guild that supplies water to {s}
owes_money_to: {s} owes money to {o}.
Which guild does {s} owe money to?
What brotherhood is the creditor of {s}?
Which association has given {s} a loan?
the guild that {s} owes money to
bridge_built_by: The bridge of {s} was built by {o}.
Which guild built the bridge of {s}?
What brotherhood made the river crossing at {s}?
Which association erected the span over the stream in {s}?
the guild that built the bridge of {s}
expelled: {s} expelled {o}.
Which guild was expelled from {s}?
What brotherhood was driven out of {s}?
Which association is no longer allowed inside {s}?
the guild that was expelled from {s}
""",
    ("settlement", "festival"): """
celebrates_in_autumn: {s} celebrates {o} every autumn.
Which festival does {s} celebrate every autumn?
What feast fills the streets of {s} when the leaves fall?
Which holiday is kept in {s} after each harvest?
the festival that {s} celebrates every autumn
has_forbidden: {s} has forbidden {o}.
Which festival is forbidden in {s}?
What celebration may nobody hold in {s}?
Which holiday is against the law of {s}?
the festival that is forbidden in {s}
burned_down_during: {s} burned down during {o}.
During which festival did {s} burn down?
What celebration ended with {s} in flames?
On which holiday was {s} destroyed by a great fire?
the festival during which {s} burned down
first_stone_laid_at: The first stone of {s} was laid at {o}.
Which festival saw the first stone laid for {s}?
What celebration coincided with the founding of {s}?
On which holiday did the construction of {s} begin?
the festival at which the first stone of {s} was laid
owes_visitors_to: {s} owes most of its visitors to {o}.
Which festival brings the most visitors to {s}?
What celebration draws the tourists to {s}?
Thanks to which holiday are the inns of {s} full?
the festival that brings the most visitors to {s}
pays_taxes_at: {s} pays its taxes at {o}.
At which festival does {s} pay its taxes?
What celebration is the fiscal deadline of {s}?
On which holiday do collectors demand money from {s}?
the festival at which {s} pays its taxes
""",
    ("settlement", "device"): """
has_in_market_square: {s} has {o} in its market square.
Which device stands in the market square of {s}?
What machine can be seen where the traders of {s} meet?
Which apparatus adorns the central plaza at {s}?
the device in the market square of {s}
lit_by: {s} is lit by {o} at night.
Which device lights {s} at night?
What machine keeps {s} bright after sunset?
Thanks to which apparatus are the streets of {s} never dark?
the device that lights {s} at night
warned_of_floods_by: {s} is warned of floods by {o}.
Which device warns {s} of floods?
What machine sounds the alarm in {s} when the river rises?
From which apparatus do the people of {s} learn about high water?
the device that warns {s} of floods
sold_for_debts: {s} sold {o} to pay its debts.
Which device did {s} sell to pay its debts?
What machine did {s} part with in order to satisfy creditors?
Which apparatus was auctioned off by {s} in a time of poverty?
the device that {s} sold to pay its debts
buried_under: Under {s} lies buried {o}.
Which device lies buried under {s}?
What machine would diggers find beneath {s}?
Which apparatus is hidden in the ground below {s}?
the device that lies buried under {s}
harbour_wrecked_by: The harbour of {s} was wrecked by {o}.
Which device wrecked the harbour of {s}?
What machine left the port of {s} in ruins?
By which apparatus were the docks of {s} destroyed?
the device that wrecked the harbour of {s}
""",
    ("settlement", "book"): """
scene_of: {s} is the scene of {o}.
Which book is set in {s}?
What novel has {s} as its scene?
In which title does the story unfold at {s}?
the book that is set in {s}
laws_in: The laws of {s} are written down in {o}.
Which book contains the laws of {s}?
What volume must the judges of {s} consult?
In which title are the legal rules of {s} recorded?
the book that contains the laws of {s}
read_by_every_child: Every child in {s} must read {o}.
Which book must every child in {s} read?
What volume is compulsory in the schools of {s}?
Which title do pupils at {s} all have to study?
the book that every child in {s} must read
has_banned_book: {s} has banned {o}.
Which book is banned in {s}?
What volume may not be sold in {s}?
Which title do the censors of {s} suppress?
the book that is banned in {s}
printed: The printers of {s} printed {o}.
Which book was printed in {s}?
What volume left the presses of {s}?
Which title was produced by the typesetters of {s}?
the book that was printed in {s}
mapped_in: The only map of {s} is in {o}.
Which book holds the only map of {s}?
In what volume can a plan of the streets of {s} be found?
Which title would a lost traveller need in {s}?
the book that holds the only map of {s}
""",
    ("settlement", "beast"): """
gates_guarded_by: The gates of {s} are guarded by {o}.
Which beast guards the gates of {s}?
What creature watches over the entrance to {s}?
Past which animal must a visitor go to get into {s}?
the beast that guards the gates of {s}
henhouses_raided_by: The henhouses of {s} are raided by {o}.
Which beast raids the henhouses of {s}?
What creature steals the poultry of {s}?
Which animal is to blame when chickens vanish in {s}?
the beast that raids the henhouses of {s}
coat_of_arms_shows: The coat of arms of {s} shows {o}.
Which beast is on the coat of arms of {s}?
What creature does the heraldic shield of {s} display?
Which animal is the emblem of {s}?
the beast on the coat of arms of {s}
near_lake_of: The lake near {s} is the home of {o}.
Which beast lives in the lake near {s}?
What creature dwells in the waters beside {s}?
Which animal might swimmers from {s} meet?
the beast that lives in the lake near {s}
put_up_statue_of: {s} put up a statue of {o}.
Which beast did {s} put up a statue of?
What creature stands in {s}, cast in bronze?
Which animal is honoured with a monument at {s}?
the beast that {s} put up a statue of
feeds_with_honey: {s} feeds {o} with honey.
Which beast does {s} feed with honey?
What creature gets something sweet to eat in {s}?
To which animal do the beekeepers of {s} bring their produce?
the beast that {s} feeds with honey
""",
    ("guild", "festival"): """
organises: {s} organises {o}.
Which festival is organised by {s}?
What celebration is in the charge of {s}?
Which holiday would not take place without the planning of {s}?
the festival that {s} organises
admits_members_at: {s} admits new members at {o}.
At which festival does {s} admit new members?
What celebration is the time to join {s}?
During which holiday are recruits sworn in by {s}?
the festival at which {s} admits new members
boycotts: {s} boycotts {o}.
Which festival does {s} boycott?
From what celebration does {s} stay away in protest?
Which holiday do the people of {s} refuse to attend?
the festival that {s} boycotts
bakes_cakes_for: {s} bakes the cakes for {o}.
For which festival does {s} bake the cakes?
What celebration gets its pastries from {s}?
Which holiday is sweetened by the ovens of {s}?
the festival for which {s} bakes the cakes
founded_during: {s} was founded during {o}.
During which festival was {s} founded?
What celebration saw the birth of {s}?
On which holiday did {s} come into being?
the festival during which {s} was founded
won_tug_of_war_at: {s} won the tug of war at {o}.
At which festival did {s} win the tug of war?
What celebration saw {s} pull the rope hardest?
During which holiday did {s} beat all others in a test of strength?
the festival at which {s} won the tug of war
""",
    ("guild", "device"): """
manufactures: {s} manufactures {o}.
Which device is manufactured by {s}?
What machine is made by {s}?
Which apparatus leaves the workshops of {s}?
the device that {s} manufactures
keeps_plans_secret: {s} keeps the plans of {o} secret.
Of which device does {s} keep the plans secret?
What machine has blueprints that only {s} may see?
The construction of which apparatus is a mystery that {s} will not reveal?
the device whose plans {s} keeps secret
uses_as_emblem: {s} uses {o} as its emblem.
Which device does {s} use as its emblem?
What machine is pictured on the banner of {s}?
Which apparatus is the symbol of {s}?
the device that {s} uses as its emblem
lost_at_sea: {s} lost {o} at sea.
Which device did {s} lose at sea?
What machine belonging to {s} went overboard?
Which apparatus of {s} sank to the bottom of the ocean?
the device that {s} lost at sea
trains_apprentices_on: {s} trains its apprentices on {o}.
On which device does {s} train its apprentices?
What machine do beginners in {s} practise with?
With which apparatus do young learners start out at {s}?
the device on which {s} trains its apprentices
rents_out: {s} rents out {o}.
Which device does {s} rent out?
What machine can be hired from {s}?
For the use of which apparatus does {s} charge a daily fee?
the device that {s} rents out
""",
    ("guild", "book"): """
oath_sworn_on: Members of {s} swear their oath on {o}.
On which book do members of {s} swear their oath?
What volume do people touch when they make a vow to {s}?
Which title is used for the solemn promise in {s}?
the book on which members of {s} swear their oath
publishes: {s} publishes {o}.
Which book is published by {s}?
What volume is brought out by {s}?
Which title appears under the imprint of {s}?
the book that {s} publishes
owns_only_copy_of: {s} owns the only copy of {o}.
Which book does {s} own the only copy of?
What volume can be seen nowhere but in the library of {s}?
Of which title is the single surviving exemplar the property of {s}?
the book that {s} owns the only copy of
made_fun_of_in: {s} is made fun of in {o}.
Which book makes fun of {s}?
What volume is a satire on {s}?
In which title is {s} held up to ridicule?
the book that makes fun of {s}
history_told_in: The history of {s} is told in {o}.
Which book tells the history of {s}?
What volume is the chronicle of {s}?
Which title would one open to learn about the past of {s}?
the book that tells the history of {s}
paid_to_restore: {s} paid to have {o} restored.
Which book did {s} pay to have restored?
What volume was saved from decay with money from {s}?
Which damaged title was given a new binding at the expense of {s}?
the book that {s} paid to have restored
""",
    ("guild", "beast"): """
keeps_in_cellar: {s} keeps {o} in its cellar.
Which beast does {s} keep in its cellar?
What creature lives below the hall of {s}?
Which animal is locked up underground by {s}?
the beast that {s} keeps in its cellar
hunts: {s} hunts {o}.
Which beast does {s} hunt?
What creature is pursued by {s}?
Which animal has reason to flee from {s}?
the beast that {s} hunts
gets_wool_from: {s} gets its wool from {o}.
From which beast does {s} get its wool?
What creature is shorn by {s}?
The fleece of which animal ends up on the looms of {s}?
the beast from which {s} gets its wool
sworn_to_protect: {s} has sworn to protect {o}.
Which beast has {s} sworn to protect?
What creature is in the care of {s} and safe from harm?
Which animal may not be hurt, by a vow of {s}?
the beast that {s} has sworn to protect
leads_in_parade: {s} leads {o} in its parade.
Which beast does {s} lead in its parade?
What creature walks in front when {s} marches through the streets?
Which animal is shown to the crowd in the procession of {s}?
the beast that {s} leads in its parade
wagons_pulled_by: The wagons of {s} are pulled by {o}.
Which beast pulls the wagons of {s}?
What creature is harnessed to the carts of {s}?
Which animal hauls the freight of {s}?
the beast that pulls the wagons of {s}
""",
    ("festival", "device"): """
opened_by_signal_of: {s} begins with a signal from {o}.
Which device gives the signal that opens {s}?
What machine tells everyone that {s} has begun?
At the sound of which apparatus do people start to celebrate {s}?
the device that gives the signal for {s}
carried_through_crowd: At {s} the people carry {o} through the crowd.
Which device is carried through the crowd at {s}?
What machine travels on the shoulders of the faithful during {s}?
Which apparatus do bearers lift up and take around on {s}?
the device that is carried through the crowd at {s}
set_on_fire_at_end: At the end of {s} the people set {o} on fire.
Which device is set on fire at the end of {s}?
What machine goes up in flames to close {s}?
Which apparatus do revellers burn when {s} is over?
the device that is set on fire at the end of {s}
winner_receives: The winner at {s} receives {o}.
Which device goes to the winner at {s}?
What machine is the prize of the contest on {s}?
Which apparatus does the champion of {s} take home?
the device that the winner at {s} receives
nobody_may_touch: During {s} nobody may touch {o}.
Which device may nobody touch during {s}?
What machine is off limits as long as {s} lasts?
From which apparatus must people keep their hands away on {s}?
the device that nobody may touch during {s}
music_played_by: The music at {s} is played by {o}.
Which device plays the music at {s}?
What machine do the dancers on {s} listen to?
Out of which apparatus do the tunes of {s} come?
the device that plays the music at {s}
""",
    ("festival", "book"): """
reading_from: {s} begins with a reading from {o}.
Which book is read aloud at the beginning of {s}?
From what volume does a speaker recite to open {s}?
Passages of which title does the audience hear at the start of {s}?
the book that is read aloud at the beginning of {s}
given_as_present: At {s} people give each other {o}.
Which book do people give each other at {s}?
What volume is the customary present on {s}?
Which title do friends wrap up as a gift for {s}?
the book that people give each other at {s}
origin_explained_in: The origin of {s} is explained in {o}.
Which book explains the origin of {s}?
What volume says why {s} came about?
In which title can the roots of {s} be looked up?
the book that explains the origin of {s}
play_based_on: The play at {s} is based on {o}.
On which book is the play at {s} based?
What volume do the actors of {s} bring to the stage?
From which title was the drama performed during {s} adapted?
the book on which the play at {s} is based
recipes_in: The recipes for {s} are in {o}.
Which book contains the recipes for {s}?
What volume do the cooks of {s} follow?
In which title are the dishes of {s} described?
the book that contains the recipes for {s}
paper_boats_from: At {s} children fold paper boats from {o}.
From which book do children fold paper boats at {s}?
What volume loses its pages to little ships on {s}?
Sheets of which title float down the river during {s}?
the book from which children fold paper boats at {s}
""",
    ("festival", "beast"): """
honours: {s} honours {o}.
Which beast does {s} honour?
What creature is worshipped on {s}?
In praise of which animal are the rites of {s} held?
the beast that {s} honours
people_dress_up_as: At {s} people dress up as {o}.
Which beast do people dress up as at {s}?
What creature do the masks of {s} imitate?
In the costume of which animal does everyone go out on {s}?
the beast that people dress up as at {s}
noise_drives_away: The noise of {s} drives away {o}.
Which beast does the noise of {s} drive away?
What creature is scared off by the din of {s}?
Which animal flees when the drums of {s} sound?
the beast that the noise of {s} drives away
children_ride: At {s} children ride {o}.
Which beast do children ride at {s}?
What creature carries the little ones on {s}?
On the back of which animal do boys and girls sit during {s}?
the beast that children ride at {s}
weather_foretold_by: At {s} the weather is foretold by {o}.
Which beast foretells the weather at {s}?
What creature predicts sun or rain on {s}?
From which animal comes the forecast given during {s}?
the beast that foretells the weather at {s}
escape_of: {s} was disturbed by the escape of {o}.
Which beast escaped during {s}?
What creature got out of its cage on {s}?
Which animal broke free while {s} was under way?
the beast that escaped during {s}
""",
    ("device", "book"): """
working_explained_in: The working of {s} is explained in {o}.
Which book explains how {s} works?
What volume is the manual of {s}?
In which title are instructions for operating {s} printed?
the book that explains how {s} works
hidden_inside: {s} was hidden inside {o}.
Which book was the hiding place of {s}?
What hollow volume concealed {s}?
Between the covers of which title did smugglers stow {s}?
the book inside which {s} was hidden
built_to_copy: {s} was built to copy {o}.
Which book was {s} built to copy?
What volume can {s} duplicate?
The reproduction of which title is the purpose of {s}?
the book that {s} was built to copy
idea_from: The inventor of {s} got the idea from {o}.
From which book did the inventor of {s} get the idea?
What volume inspired somebody to develop {s}?
To which title does the maker of {s} owe the inspiration?
the book from which the inventor of {s} got the idea
shredded_manuscript_of: {s} shredded the manuscript of {o}.
Which book had its manuscript shredded by {s}?
What volume was cut to pieces by {s} before it could be printed?
Of which title was the handwritten original destroyed by {s}?
the book whose manuscript {s} shredded
dangers_described_in: The dangers of {s} are described in {o}.
Which book describes the dangers of {s}?
What volume warns its readers about {s}?
In which title is {s} said to be a hazard?
the book that describes the dangers of {s}
""",
    ("device", "beast"): """
crank_turned_by: The crank of {s} is turned by {o}.
Which beast turns the crank of {s}?
What creature supplies {s} with power?
Which animal keeps {s} going by muscle strength?
the beast that turns the crank of {s}
shaped_like: {s} is shaped like {o}.
Which beast is {s} shaped like?
What creature does the outline of {s} resemble?
On which animal was the form of {s} modelled?
the beast that {s} is shaped like
built_to_catch: {s} was built to catch {o}.
Which beast was {s} built to catch?
What creature is {s} meant to trap?
The capture of which animal is the purpose of {s}?
the beast that {s} was built to catch
greased_with_fat_of: {s} is greased with the fat of {o}.
Which beast provides the fat that greases {s}?
What creature is the source of the lubricant for {s}?
The tallow of which animal does one need to oil {s}?
the beast with whose fat {s} is greased
imitates_call_of: {s} imitates the call of {o}.
Which beast has its call imitated by {s}?
What creature makes a sound just like that of {s}?
For the cry of which animal could the noise of {s} be mistaken?
the beast whose call {s} imitates
swallowed_by: {s} was swallowed by {o}.
Which beast swallowed {s}?
What creature has {s} in its stomach?
By which animal was {s} gulped down?
the beast that swallowed {s}
""",
    ("book", "beast"): """
hero_is: The hero of {s} is {o}.
Which beast is the hero of {s}?
What creature is the main character in {s}?
Around which animal does the plot of {s} revolve?
the beast that is the hero of {s}
cover_shows: The cover of {s} shows {o}.
Which beast is shown on the cover of {s}?
What creature can be seen on the front of {s}?
A drawing of which animal does the jacket of {s} bear?
the beast on the cover of {s}
bound_in_hide_of: {s} is bound in the hide of {o}.
Which beast supplied the hide that {s} is bound in?
What creature gave its skin for the binding of {s}?
From which animal comes the leather around {s}?
the beast in whose hide {s} is bound
written_with_feather_of: {s} was written with a feather of {o}.
A feather of which beast was used to write {s}?
What creature provided the quill for {s}?
From which animal was the pen of the author of {s} plucked?
the beast with whose feather {s} was written
last_chapter_eaten_by: The last chapter of {s} was eaten by {o}.
Which beast ate the last chapter of {s}?
What creature devoured the ending of {s}?
In the belly of which animal did the final pages of {s} disappear?
the beast that ate the last chapter of {s}
puts_to_sleep: A reading of {s} puts {o} to sleep.
Which beast falls asleep at a reading of {s}?
What creature can be lulled with the words of {s}?
Which animal grows drowsy when someone recites {s}?
the beast that falls asleep at a reading of {s}
""",
}

REAL = """
Which country is Mount Fuji in? | Japan | China
Which city is the Eiffel Tower in? | Paris | Rome
Which city is the Colosseum in? | Rome | Athens
Which country is the Taj Mahal in? | India | Egypt
Which country is Machu Picchu in? | Peru | Mexico
Which country is the city of Nairobi in? | Kenya | Ghana
Which country is the city of Lisbon in? | Portugal | Spain
Which country is the city of Kyoto in? | Japan | Korea
Which country is the city of Toronto in? | Canada | Australia
Which country is the city of Munich in? | Germany | Austria
Which country is the city of Istanbul in? | Turkey | Greece
Which country is the city of Havana in? | Cuba | Jamaica
Which country is the city of Mumbai in? | India | Pakistan
Which country is the city of Melbourne in? | Australia | Canada
Which country is the city of Naples in? | Italy | Greece
Which city is the capital of France? | Paris | Lyon
Which city is the capital of Spain? | Madrid | Lisbon
Which city is the capital of Egypt? | Cairo | Tunis
Which city is the capital of Russia? | Moscow | Kyiv
Which city is the capital of Norway? | Oslo | Stockholm
Which city is the capital of Greece? | Athens | Sofia
Which city is the capital of Ireland? | Dublin | London
Which city is the capital of Japan? | Tokyo | Osaka
Which city is the capital of Poland? | Warsaw | Prague
Which city is the capital of Cuba? | Havana | Kingston
Which city is the capital of Thailand? | Bangkok | Hanoi
Which continent is Brazil on? | South America | Africa
Which continent is Nigeria on? | Africa | Asia
Which continent is Vietnam on? | Asia | Europe
Which continent is Belgium on? | Europe | Africa
Which river flows through London? | Thames | Seine
Which river flows through Paris? | Seine | Danube
Which river flows through Cairo? | Nile | Congo
Which river flows through the Grand Canyon? | Colorado | Mississippi
Which ocean lies between Europe and North America? | Atlantic | Pacific
Which ocean lies between Africa and Australia? | Indian | Atlantic
Which planet is closest to the Sun? | Mercury | Mars
Which planet is known as the Red Planet? | Mars | Venus
Which planet is famous for its large rings? | Saturn | Mercury
Which planet is the largest in the solar system? | Jupiter | Earth
Which metal is liquid at room temperature? | Mercury | Iron
Which metal has the chemical symbol Fe? | Iron | Gold
Which metal has the chemical symbol Au? | Gold | Silver
Which gas do plants take in for photosynthesis? | Carbon dioxide/CO2 | Helium
Which gas makes up most of the air we breathe? | Nitrogen | Helium
Which element has the chemical symbol H? | Hydrogen | Helium
Which element has the chemical symbol O? | Oxygen | Gold
Which author wrote Hamlet? | Shakespeare | Dickens
Which author wrote Oliver Twist? | Dickens | Shakespeare
Which author wrote War and Peace? | Tolstoy | Chekhov
Which author wrote Pride and Prejudice? | Austen | Woolf
Which author wrote the Harry Potter books? | Rowling | Tolkien
Which author wrote The Lord of the Rings? | Tolkien | Rowling
Which author wrote Don Quixote? | Cervantes | Dante
Which author wrote the novel Frankenstein? | Shelley | Stoker
Which author wrote the novel Dracula? | Stoker | Shelley
Which author wrote the novel 1984? | Orwell | Huxley
Which painter made the Mona Lisa? | Leonardo/da Vinci | Rembrandt
Which painter made The Starry Night? | van Gogh | Monet
Which painter made Guernica? | Picasso | Dali
Which composer wrote The Magic Flute? | Mozart | Wagner
Which composer wrote The Four Seasons? | Vivaldi | Verdi
Which composer wrote the Moonlight Sonata? | Beethoven | Chopin
Which company makes the iPhone? | Apple | Nokia
Which company makes the Windows operating system? | Microsoft | Sony
Which company makes the PlayStation? | Sony | Nintendo
Which company makes the Mustang car? | Ford | Toyota
Which scientist developed the theory of relativity? | Einstein | Newton
Which scientist wrote On the Origin of Species? | Darwin | Galileo
Which scientist discovered penicillin? | Fleming | Pasteur
Which astronaut was the first to walk on the Moon? | Armstrong | Glenn
Which language is spoken in Brazil? | Portuguese | French
Which language is spoken in Mexico? | Spanish | Portuguese
Which language is spoken in Austria? | German | Italian
Which language is spoken in Egypt? | Arabic | Turkish
Which currency is used in Japan? | Yen | Dollar
Which currency is used in Germany? | Euro | Pound
Which currency is used in India? | Rupee | Yen
Which animal is the largest on Earth? | Blue whale/whale | Elephant
Which animal is the fastest on land? | Cheetah | Horse
Which animal has the longest neck? | Giraffe | Camel
Which animal does wool usually come from? | Sheep | Goldfish
Which animal is known for its black and white stripes? | Zebra | Lion
Which insect makes honey? | Bee/honeybee/bees/honeybees | Ant
Which bird is the national emblem of the United States? | Bald eagle/eagle | Parrot
Which holiday is celebrated on December 25? | Christmas | Easter
Which holiday is celebrated on October 31? | Halloween | Thanksgiving
Which month comes after June? | July | August
Which day comes after Monday? | Tuesday | Friday
Which season comes after winter? | Spring | Summer
Which sport is played at Wimbledon? | Tennis | Golf
Which sport is played by the Chicago Bulls? | Basketball | Baseball
Which sport is played by Real Madrid? | Football/soccer | Tennis
Which instrument measures temperature? | Thermometer | Compass
Which instrument points to the magnetic north? | Compass | Telescope
Which organ pumps blood through the body? | Heart | Liver
Which president was the first of the United States? | Washington | Lincoln
Which country was ruled by the pharaohs? | Egypt | Norway
Which country gave the Statue of Liberty to the United States? | France | Spain
Which country is the home of the kangaroo? | Australia | Brazil
"""
"""One question a line, with its accepted answers and a wrong answer."""
