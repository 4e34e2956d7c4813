"""How people ask where regions are, what they share, and whether there is anything in a box.

Each table has the wordings of training (`seen`) and those held out of it (`unseen`), about 30% of all. `{a}` and
`{b}` stand for regions.
"""

from gpt4roi_nb.data.scenes.held_out import Wordings

RELATION = Wordings(
    seen=(
        "Where is {a} relative to {b}?",
        "Where is {a} in relation to {b}?",
        "Where does {a} stand relative to {b}?",
        "Where is {a}, seen from {b}?",
        "How is {a} placed relative to {b}?",
        "What is the position of {a} relative to {b}?",
        "Describe where {a} is relative to {b}.",
        "Where is {a} compared with {b}?",
        "Tell me where {a} is relative to {b}.",
        "What is the relation between {a} and {b}?",
    ),
    unseen=(
        "Where does {a} stand, seen from {b}?",
        "Tell me where {a} stands in relation to {b}.",
        "Describe the position of {a} relative to {b}.",
        "Where is {a} placed in relation to {b}?",
    ),
)

LEFT_OF = Wordings(
    seen=(
        "What is left of {a}?",
        "What is to the left of {a}?",
        "What stands to the left of {a}?",
        "Which objects are left of {a}?",
        "What do you see to the left of {a}?",
    ),
    unseen=("Looking left from {a}, what is there?", "Which objects stand to the left of {a}?"),
)
RIGHT_OF = Wordings(
    seen=(
        "What is right of {a}?",
        "What is to the right of {a}?",
        "What stands to the right of {a}?",
        "Which objects are right of {a}?",
        "What do you see to the right of {a}?",
    ),
    unseen=("Looking right from {a}, what is there?", "Which objects stand to the right of {a}?"),
)
BEHIND = Wordings(
    seen=(
        "What is behind {a}?",
        "What stands behind {a}?",
        "Which objects are behind {a}?",
        "What is further away than {a}?",
        "What do you see behind {a}?",
    ),
    unseen=("Which objects stand behind {a}?", "What can you see behind {a}?"),
)
IN_FRONT_OF = Wordings(
    seen=(
        "What is in front of {a}?",
        "What stands in front of {a}?",
        "Which objects are in front of {a}?",
        "What is closer to us than {a}?",
        "What do you see in front of {a}?",
    ),
    unseen=("Which objects stand in front of {a}?", "What can you see in front of {a}?"),
)
NEAREST_TO = Wordings(
    seen=(
        "What is nearest to {a}?",
        "What is closest to {a}?",
        "Which object is nearest to {a}?",
        "Which object is closest to {a}?",
        "What is next to {a}?",
        "What stands next to {a}?",
        "What is the closest object to {a}?",
    ),
    unseen=("What stands nearest to {a}?", "Of all objects, which is closest to {a}?", "What stands closest to {a}?"),
)
BETWEEN = Wordings(
    seen=(
        "What is between {a} and {b}?",
        "What lies between {a} and {b}?",
        "What stands between {a} and {b}?",
        "Which objects are between {a} and {b}?",
        "Is there anything between {a} and {b}?",
        "What do you see between {a} and {b}?",
    ),
    unseen=("Which objects stand between {a} and {b}?", "What can you see between {a} and {b}?"),
)
IN_COMMON = Wordings(
    seen=(
        "What do {a} and {b} have in common?",
        "What have {a} and {b} in common?",
        "What do {a} and {b} share?",
        "How are {a} and {b} alike?",
        "What is the same about {a} and {b}?",
        "In what are {a} and {b} alike?",
    ),
    unseen=(
        "What is alike in {a} and {b}?",
        "{a} and {b}: what have they in common?",
        "How is {a} like {b}?",
    ),
)
DIFFER = Wordings(
    seen=(
        "How do {a} and {b} differ?",
        "What is the difference between {a} and {b}?",
        "How is {a} different from {b}?",
        "In what do {a} and {b} differ?",
        "What is different about {a} and {b}?",
        "What are the differences between {a} and {b}?",
    ),
    unseen=(
        "How does {a} differ from {b}?",
        "{a} and {b}: how do they differ?",
        "What is different between {a} and {b}?",
    ),
)

ANYTHING = Wordings(
    seen=(
        "Is there anything in {a}?",
        "Is there an object in {a}?",
        "What stands in {a}?",
        "Is there something in {a}?",
        "Do you see anything in {a}?",
        "Does anything stand in {a}?",
    ),
    unseen=("Can you see anything in {a}?", "Would you say there is something in {a}?", "Do you see an object in {a}?"),
)

# About the only region that was named before.
IT = {
    "category": Wordings(("What shape is it?", "What kind of object is it?"), ("Which kind of thing would it be?",)),
    "colour": Wordings(("What colour is it?", "And its colour?"), ("Which colour is it?",)),
    "material": Wordings(("What is it made of?", "What material is it?"), ("Which material is it made of?",)),
    "size": Wordings(("How big is it?", "Is it small or large?"), ("What size is it?",)),
    "phrase": Wordings(("What is it?", "Describe it."), ("Tell me what it is.",)),
}
