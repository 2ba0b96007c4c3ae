"""The words of the pocket world: every entity is one word, and no word has two meanings."""

from __future__ import annotations

from typing import Final

PERSON: Final = tuple(
    "Adela Alaric Anselm Beatrix Bertil Camille Cedric Clara Conrad Cyrus Dagmar Delphine Desmond "
    "Edgar Elspeth Emil Esther Fabian Felix Fiona Frida Gaspard Gideon Greta Gustav Hannah Hector "
    "Helga Hugo Ingrid Isolde Ivan Jasper Judith Julius Kaspar Katrin Konrad Lambert Leonora "
    "Linus Lorenz Lucia Magnus Malcolm Marta Maurice Mirabel Nadia Nestor Niklas Noelle Octavia "
    "Olga Orson Oswald Paloma Percy Petra Quentin Ramona Raoul Regina Roland Rosalind Rufus "
    "Sabina Selma Sigrid Silas Simone Stefan Sylvia Tabitha Thaddeus Theodora Tobias Ursula "
    "Valentin Viktor Viola Waldo Wanda Wilfred Winona Xavier Yvette Zelda".split()
)
FILM: Final = tuple(
    "Afterglow Backwater Birdsong Blackthorn Bluebell Bonfire Breakwater Candlemas Cloudburst "
    "Coldwater Crossroads Daybreak Deadlock Driftwood Dustbowl Earthbound Eventide Fairground "
    "Fallout Firebrand Floodgate Foghorn Foxglove Frostbite Gaslight Ghostwood Goldrush "
    "Greenhouse Hailstone Halfmoon Harvest Heirloom Hideaway Homeward Icebound Ironclad Ivory "
    "Jackdaw Juniper Kingfisher Landslide Lantern Lighthouse Longshore Masquerade Midnight Mirage "
    "Moonrise Nightfall Nocturne Northbound Outpost Overcast Pathfinder Quicksand Rainfall "
    "Redwood Riptide Sandstorm Shipwreck Silverlake Skylark Snowdrift Starlight Sunflower Thunder "
    "Tidewater Twilight Undertow Vagabond Waterfall Whirlwind Wildfire Windmill Winterland".split()
)
COMPANY: Final = tuple(
    "Acrodyne Altamar Brightec Caldonix Centrifa Corvalis Dynaport Elverra Fennoway Ferrotec "
    "Galvanor Gravitas Helioma Hydrona Inovar Joltec Kestrix Lumenor Maridian Metrovia Nautica "
    "Novalux Omnitel Orbitec Pelagia Polytron Quantia Radianz Sorvino Stratix Synthia Tectona "
    "Terravox Umbrano Vectoria Veridian Vulcana Wexford Xylonix Zephyrus".split()
)
CITY: Final = tuple(
    "Amsterdam Athens Barcelona Belgrade Berlin Bologna Bordeaux Bremen Bristol Brussels Budapest "
    "Cairo Chicago Cologne Cracow Dakar Delhi Dresden Dublin Edinburgh Geneva Glasgow Gothenburg "
    "Granada Hamburg Hanoi Helsinki Istanbul Kyoto Lagos Leipzig Lima Lisbon London Lyon Madrid "
    "Marseille Milan Montreal Moscow Munich Nairobi Naples Oslo Palermo Paris Porto Prague Quito "
    "Riga Rome Santiago Seville Stockholm Tallinn Tunis Turin Utrecht Venice Vienna Vilnius "
    "Warsaw Zagreb Zurich".split()
)
JOB: Final = tuple(
    "baker botanist butcher carpenter chemist composer dancer dentist diplomat farmer fisherman "
    "gardener geologist historian journalist judge lawyer librarian mathematician mechanic "
    "merchant musician novelist nurse painter philosopher photographer physician pianist pilot "
    "plumber poet potter sailor sculptor singer surgeon tailor teacher violinist weaver".split()
)
PLACE: Final = tuple(
    "abbey attic bakery balcony barn bridge castle cellar chapel cottage courtyard dairy fortress "
    "fountain gallery garage garden gate granary hallway harbour inn kitchen laboratory library "
    "mansion market mill monastery museum orchard palace pavilion quarry stable stairway temple "
    "theatre tower vault workshop".split()
)
CODE: Final = tuple(
    "agate almond amber anchor apricot barley basil beetle bronze cedar cherry cinnamon clover "
    "cobalt copper coral cotton crystal dagger ebony emerald falcon feather fennel garnet ginger "
    "granite hazel hickory indigo jade jasmine lavender lemon magnet maple marble mustard nickel "
    "nutmeg onyx opal orchid pepper quartz ruby saffron sapphire topaz velvet walnut zinc".split()
)
LABEL: Final = tuple(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda omicron rho sigma tau "
    "upsilon phi chi psi omega".split()
)
# A topic is recognised by its nouns: two texts of one topic need not share a noun.
TOPIC: Final[dict[str, tuple[str, ...]]] = {
    "animals": ("badger", "heron", "otter", "wolf"),
    "food": ("bread", "cheese", "porridge", "soup"),
    "music": ("cello", "drum", "flute", "trumpet"),
    "clothes": ("coat", "glove", "scarf", "shirt"),
    "tools": ("axe", "chisel", "hammer", "shovel"),
    "weather": ("fog", "frost", "rain", "snow"),
    "furniture": ("bench", "bookcase", "cupboard", "table"),
    "vehicles": ("bicycle", "bus", "tractor", "train"),
    "body": ("ankle", "elbow", "knee", "wrist"),
    "games": ("chess", "darts", "hockey", "tennis"),
}
TOPIC_OF: Final = {noun: topic for topic, nouns in TOPIC.items() for noun in nouns}
ENTITY: Final[dict[str, tuple[str, ...]]] = {
    "person": PERSON,
    "film": FILM,
    "company": COMPANY,
    "city": CITY,
    "job": JOB,
    "place": PLACE,
    "code": CODE,
    "noun": tuple(TOPIC_OF),
    "label": LABEL,
}
