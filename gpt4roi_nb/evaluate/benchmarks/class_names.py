"""Names of the classes of Cityscapes and ADE20K: the datasets' own, and further words for them.

Both tables are facts of the datasets. A class's own name comes first. Cityscapes' further words follow the definitions
of its classes (a tram is a train, grass is terrain); ADE20K's are those of its own list of 150. Published figures use
other words, from files in `osprey/eval/utils` of Osprey's repository: such a file in the data folder is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.evaluate.metrics.ground_truth import ClassName
from gpt4roi_nb.files import check_regular_file

CITYSCAPES: dict[int, tuple[str, ...]] = {
    7: ("road", "street"),
    8: ("sidewalk", "pavement", "footpath"),
    11: ("building", "house", "skyscraper"),
    12: ("wall",),
    13: ("fence", "fencing"),
    17: ("pole", "post", "lamp post"),
    19: ("traffic light", "traffic signal", "stoplight"),
    20: ("traffic sign", "road sign", "street sign", "stop sign"),
    21: ("vegetation", "tree", "trees", "hedge", "bush", "bushes", "plant"),
    22: ("terrain", "grass", "lawn", "soil", "sand"),
    23: ("sky", "clouds"),
    24: ("person", "pedestrian", "man", "woman", "child", "people"),
    25: ("rider", "cyclist", "bicyclist", "motorcyclist"),
    26: ("car", "automobile", "van", "suv"),
    27: ("truck", "lorry"),
    28: ("bus", "coach"),
    31: ("train", "tram", "streetcar"),
    32: ("motorcycle", "motorbike", "moped", "scooter"),
    33: ("bicycle", "bike"),
}

# By category id, from 0; names are separated by commas.
_ADE20K = """\
wall
building, edifice
sky
floor, flooring
tree
ceiling
road, route
bed
window, windowpane
grass
cabinet
sidewalk, pavement
person, individual, someone, somebody, mortal, soul
earth, ground
door, double door
table
mountain, mount
plant, flora, plant life
curtain, drape, drapery, mantle, pall
chair
car, auto, automobile, machine, motorcar
water
painting, picture
sofa, couch, lounge
shelf
house
sea
mirror
rug, carpet, carpeting
field
armchair
seat
fence, fencing
desk
rock, stone
wardrobe, closet, press
lamp
tub, bathtub, bathing tub, bath
rail, railing
cushion
base, pedestal, stand
box
column, pillar
signboard, sign
chest of drawers, chest, bureau, dresser
counter
sand
sink
skyscraper
fireplace, hearth, open fireplace
refrigerator, icebox
grandstand, covered stand
path
stairs, steps
runway
case, display case, showcase, vitrine
pool table, billiard table, snooker table
pillow
screen door, screen
stairway, staircase
river
bridge, span
bookcase
blind, screen
coffee table, cocktail table
toilet, can, commode, crapper, pot, potty, stool, throne
flower
book
hill
bench
countertop
stove, kitchen stove, range, kitchen range, cooking stove
palm, palm tree
kitchen island
computer, computing machine, computing device, data processor, electronic computer, information processing system
swivel chair
boat
bar
arcade machine
hovel, hut, hutch, shack, shanty
bus, autobus, coach, charabanc, double-decker, jitney, motorbus, motorcoach, omnibus, passenger vehicle
towel
light, light source
truck, motortruck
tower
chandelier, pendant, pendent
awning, sunshade, sunblind
street lamp, streetlight
booth, cubicle, stall, kiosk
tv, television, television receiver, television set, tv set, idiot box, boob tube, telly, goggle box
plane, airplane, aeroplane
dirt track
clothes, apparel, wearing apparel, dress
pole
land, ground, soil
bannister, banister, balustrade, balusters, handrail
escalator, moving staircase, moving stairway
ottoman, pouf, pouffe, puff, hassock
bottle
buffet, counter, sideboard
poster, posting, placard, notice, bill, card
stage
van
ship
fountain
conveyer belt, conveyor belt, conveyer, conveyor, transporter
canopy
washer, automatic washer, washing machine
plaything, toy
pool, swimming pool, swimming bath, natatorium
stool
barrel, cask
basket, handbasket
falls, waterfall
tent, collapsible shelter
bag
minibike, motorbike
cradle
oven
ball
food, solid food
step, stair
tank, storage tank
trade name, brand name, brand, marque
microwave, microwave oven
pot, flowerpot
animal, animate being, beast, brute, creature, fauna
bicycle, bike, wheel, cycle
lake
dishwasher, dish washer, dishwashing machine
screen, silver screen, projection screen
blanket, cover
sculpture
hood, exhaust hood
sconce
vase
traffic light, traffic signal, stoplight
tray
trash can, ashcan, garbage can, wastebin, ash bin, ash-bin, ashbin, dustbin, trash barrel, trash bin
fan
pier, wharf, wharfage, dock
crt screen
plate
monitor, monitoring device
bulletin board, notice board
shower
radiator
glass, drinking glass
clock
flag
"""
ADE20K: dict[int, tuple[str, ...]] = {
    number: tuple(name.strip() for name in line.split(",")) for number, line in enumerate(_ADE20K.splitlines())
}
TABLES: dict[str, dict[int, tuple[str, ...]]] = {"cityscapes": CITYSCAPES, "ade20k": ADE20K}

# Osprey's files of words: one line per class, such as `13:car,cars`.
WORDS_FILES = {"cityscapes": "cityscapes_with_prompt_eng.txt", "ade20k": "ade20k_150_with_prompt_eng.txt"}
_NUMBER = re.compile("[0-9]{1,9}")
_INVALID = "invalid_class_id"  # entry 0 of ADE20K's file: no class


def class_names(categories: Sequence[Mapping[str, Any]], dataset: str) -> tuple[ClassName, ...]:
    """Return the classes of a panoptic annotation file, in its order, with all known names.

    Args:
        categories: the file's list of `id`, `name` (one or more, separated by commas) and `isthing`.
        dataset: "cityscapes" or "ade20k". A class gets the dataset's further words only if the file uses the dataset's
            name for it; in the generated world the same numbers have other names.
    """
    table = TABLES[dataset]
    found = []
    for entry in categories:
        own = [name.strip().lower() for name in str(entry["name"]).split(",") if name.strip()]
        known = table.get(entry["id"], ())
        more = known if own and own[0] in known else ()
        found.append(ClassName(int(entry["id"]), tuple(dict.fromkeys((*own, *more))), bool(entry["isthing"])))
    return tuple(found)


def read_words(file: Path, classes: Sequence[ClassName], dataset: str) -> dict[str, tuple[str, ...]]:
    """Read Osprey's file of words for classes.

    Each line is a number, a colon and words separated by commas. Numbers count Cityscapes' 19 classes from 0, and
    ADE20K's 150 from 1.

    Args:
        file: Osprey's.
        classes: of the annotation file.
        dataset: "cityscapes" or "ade20k".

    Returns:
        Class name → its words, in the file's order. Classes that are not in the dataset's own table, such as the
        generated world's, are left out.

    Raises:
        ValueError: a line is not a number with words, a number occurs twice, or a class of the dataset is missing.
    """
    table = TABLES[dataset]
    numbers = dict(enumerate(table, 0 if dataset == "cityscapes" else 1))
    words: dict[int, tuple[str, ...]] = {}
    check_regular_file(file)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text ({error}); download Osprey's file again") from error
    for place, line in enumerate(text.split("\n"), 1):
        number, colon, rest = line.partition(":")
        found = tuple(word.strip() for word in rest.split(",") if word.strip())
        if not line.strip() or found == (_INVALID,):
            continue
        if not colon or not _NUMBER.fullmatch(number.strip()) or not found or int(number) in words:
            raise ValueError(
                f"line {place} of {str(file)!r} must be a class's number, a colon and its words, as in Osprey's file, "
                f"with each number once, but is {line[:60]!r}"
            )
        words[int(number)] = found
    if words.keys() != numbers.keys():
        odd = sorted(words.keys() ^ numbers.keys())
        raise ValueError(
            f"{str(file)!r} must have the numbers {min(numbers)} to {max(numbers)}, but differs in {odd[:5]}"
        )
    by_category = {category: words[number] for number, category in numbers.items()}
    return {entry.name: by_category[entry.id] for entry in classes if entry.name in table.get(entry.id, ())}
