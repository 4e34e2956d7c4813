"""How people ask about regions of the generated world: the wordings of each kind of question.

`{a}` and `{b}` stand for the regions, `{value}` for a word such as "red", `{noun}` for an attribute's name, and
`{things}` for what is counted. Wordings are kept with "colour"; as people do, `questions.py` sometimes writes "color",
and drops capitals and question marks.
"""

CATEGORY = (
    "What shape is {a}?",
    "What kind of object is {a}?",
    "What kind of thing is {a}?",
    "Which shape does {a} have?",
    "{a}: what shape is it?",
    "Name the shape of {a}.",
    "What is the shape of {a}?",
    "Tell me the shape of {a}.",
    "What is the category of {a}?",
    "Which category does {a} belong to?",
    "What type of object is in {a}?",
    "In one word, what is {a}?",
    "What object is {a}?",
    "Can you name the object in {a}?",
    "Look at {a}. What shape is it?",
    "Shape of {a}?",
    "{a} is what kind of object?",
)
CATEGORY_CHECK = (
    "Is {a} a {value}?",
    "Is {a} a {value} or something else?",
    "Is that a {value} in {a}?",
    "Does {a} show a {value}?",
)

COLOUR = (
    "What colour is {a}?",
    "Which colour is {a}?",
    "What is the colour of {a}?",
    "What's the colour of {a}?",
    "What colour does {a} have?",
    "{a}: what colour is it?",
    "Name the colour of {a}.",
    "Tell me the colour of {a}.",
    "Which colour does {a} have?",
    "What colour is the object in {a}?",
    "What colour is the thing in {a}?",
    "Look at {a}. What colour is it?",
    "Can you tell me what colour {a} is?",
    "Colour of {a}?",
    "{a} is what colour?",
    "In which colour is {a} painted?",
)
COLOUR_CHECK = ("Is {a} {value}?", "Is the colour of {a} {value}?", "Is the object in {a} {value}?")

MATERIAL = (
    "What is {a} made of?",
    "What's {a} made of?",
    "What material is {a}?",
    "Which material is {a} made of?",
    "What is the material of {a}?",
    "What's the material of {a}?",
    "{a}: what is it made of?",
    "Name the material of {a}.",
    "Tell me what {a} is made of.",
    "Of what material is {a}?",
    "Look at {a}. What is it made of?",
    "What is the object in {a} made of?",
    "Can you tell me what {a} is made of?",
    "Material of {a}?",
    "{a} is made of what?",
)
MATERIAL_CHECK = ("Is {a} {value}?", "Is {a} made of {stuff}?", "Is the object in {a} {value}?")

SIZE = (
    "How big is {a}?",
    "How large is {a}?",
    "What size is {a}?",
    "What is the size of {a}?",
    "Is {a} small or large?",
    "Is {a} large or small?",
    "Is {a} big or small?",
    "{a}: how big is it?",
    "Tell me the size of {a}.",
    "Which size does {a} have?",
    "Look at {a}. How big is it?",
    "Is the object in {a} small or large?",
    "How big is the thing in {a}?",
    "Size of {a}?",
    "{a} is what size?",
)
SIZE_CHECK = ("Is {a} {value}?", "Is {a} a {value} object?", "Is the object in {a} {value}?")

PHRASE = (
    "What is {a}?",
    "What's {a}?",
    "What is this: {a}?",
    "What's this: {a}",
    "What is in {a}?",
    "What's in {a}?",
    "What do you see in {a}?",
    "What can you see in {a}?",
    "What does {a} show?",
    "Describe {a}.",
    "Please describe {a}.",
    "Describe the object in {a}.",
    "Tell me about {a}.",
    "Can you describe {a}?",
    "Could you tell me what {a} is?",
    "Do you know what {a} is?",
    "What is the object in {a}?",
    "What is the thing in {a}?",
    "{a}: what is it?",
    "{a}, what is that?",
    "{a}?",
    "{a} is what?",
    "Look at {a}. What is it?",
    "I drew a box, {a}. What is in it?",
    "Give a short description of {a}.",
    "Identify {a}.",
)

NOUNS = {"category": "shape", "colour": "colour", "material": "material", "size": "size"}

SAME = (
    "Is {a} the same {noun} as {b}?",
    "Are {a} and {b} the same {noun}?",
    "Do {a} and {b} have the same {noun}?",
    "Does {a} have the same {noun} as {b}?",
    "Has {a} the same {noun} as {b}?",
    "Look at {a}. Is it the same {noun} as {b}?",
    "Here is {a}: is it the same {noun} as {b}?",
    "{a} and {b}: same {noun}?",
    "Same {noun}, {a} and {b}?",
    "Is the {noun} of {a} the same as the {noun} of {b}?",
    "Is the {noun} of {a} the same as that of {b}?",
    "Do {a} and {b} share the same {noun}?",
    "Compare {a} and {b}: do they have the same {noun}?",
    "Compare {a} with {b}. Is it the same {noun}?",
    "Are the objects in {a} and {b} the same {noun}?",
    "Would you say that {a} and {b} have the same {noun}?",
    "Given {a} and {b}, are they the same {noun}?",
    "Does the {noun} of {a} match {b}?",
)
# for one attribute only
SAME_KIND = (
    "Are {a} and {b} the same kind of object?",
    "Is {a} the same kind of object as {b}?",
    "Are {a} and {b} the same kind of thing?",
)
SAME_MADE = (
    "Are {a} and {b} made of the same material?",
    "Is {a} made of the same material as {b}?",
    "Are {a} and {b} made of the same stuff?",
)
DIFFERENT = (
    "Do {a} and {b} differ in {noun}?",
    "Is {a} a different {noun} from {b}?",
    "Do {a} and {b} have a different {noun}?",
)
SAME_IT = ("Is it the same {noun} as {b}?", "And is it the same {noun} as {b}?", "Does it have the same {noun} as {b}?")

LARGER_WHICH = (
    "Which is larger, {a} or {b}?",
    "Which is bigger, {a} or {b}?",
    "Which one is larger: {a} or {b}?",
    "{a} or {b}: which is bigger?",
    "Which of {a} and {b} is larger?",
    "Of {a} and {b}, which is the larger one?",
    "Compare {a} and {b}. Which is larger?",
    "What is larger, {a} or {b}?",
    "Tell me which is bigger, {a} or {b}.",
)
SMALLER_WHICH = (
    "Which is smaller, {a} or {b}?",
    "Which one is smaller: {a} or {b}?",
    "{a} or {b}: which is smaller?",
    "Which of {a} and {b} is smaller?",
)
LARGER_CHECK = ("Is {a} larger than {b}?", "Is {a} bigger than {b}?", "Look at {a}. Is it larger than {b}?")
SMALLER_CHECK = ("Is {a} smaller than {b}?", "Look at {a}. Is it smaller than {b}?")

LEFT_RIGHT = (
    "Is {a} left or right of {b}?",
    "Is {a} to the left or to the right of {b}?",
    "On which side of {b} is {a}?",
    "Is {a} on the left or on the right of {b}?",
    "Left or right: where is {a}, seen from {b}?",
    "Look at {a} and {b}. Is the first left or right of the second?",
    "Which side of {b} is {a} on, left or right?",
    "{a}: left or right of {b}?",
)
LEFT_CHECK = ("Is {a} to the left of {b}?", "Is {a} left of {b}?", "Does {a} stand to the left of {b}?")
RIGHT_CHECK = ("Is {a} to the right of {b}?", "Is {a} right of {b}?", "Does {a} stand to the right of {b}?")
LEFT_WHICH = ("Which is further left, {a} or {b}?", "Which one is on the left, {a} or {b}?")
RIGHT_WHICH = ("Which is further right, {a} or {b}?", "Which one is on the right, {a} or {b}?")

FRONT_BEHIND = (
    "Is {a} in front of or behind {b}?",
    "Is {a} behind or in front of {b}?",
    "Does {a} stand in front of or behind {b}?",
    "In front or behind: where is {a}, seen from {b}?",
    "{a}: in front of or behind {b}?",
    "Look at {a} and {b}. Is the first in front of or behind the second?",
)
FRONT_CHECK = ("Is {a} in front of {b}?", "Does {a} stand in front of {b}?", "Is {a} closer to us than {b}?")
BEHIND_CHECK = ("Is {a} behind {b}?", "Does {a} stand behind {b}?", "Is {a} further away than {b}?")
FRONT_WHICH = ("Which is closer, {a} or {b}?", "Which is nearer, {a} or {b}?", "Which one is in front, {a} or {b}?")
BEHIND_WHICH = ("Which is further away, {a} or {b}?", "Which one is behind, {a} or {b}?")

COUNT = (
    "How many {things} are there?",
    "How many {things} do you see?",
    "How many {things} can you see?",
    "How many {things} are in the picture?",
    "How many {things} are in the image?",
    "How many {things} are on the table?",
    "How many {things} does the picture show?",
    "How many {things}?",
    "Count the {things}.",
    "Count the {things} on the table.",
    "Please count the {things}.",
    "Tell me how many {things} there are.",
    "What is the number of {things}?",
    "Number of {things}?",
    "Can you count the {things}?",
)
THINGS = ("objects", "things")

WHICH = (
    "Which objects are there?",
    "Which objects do you see?",
    "Which things are on the table?",
    "Which objects are in the picture?",
    "What is on the table?",
    "List the objects.",
    "List everything on the table.",
    "What objects are in the image?",
)
THERE_IS = (
    "Is there {value}?",
    "Is there {value} on the table?",
    "Is there {value} in the picture?",
    "Do you see {value}?",
    "Can you see {value}?",
    "Can you find {value}?",
)

COMPOUND_SAME = (
    "What is {a}, and is it the same {noun} as {b}?",
    "What is {a} and is it the same {noun} as {b}?",
    "What's {a}, and is it the same {noun} as {b}?",
    "What is {a}, and does it have the same {noun} as {b}?",
    "What is {a}? Is it the same {noun} as {b}?",
    "What is {a}? And is it the same {noun} as {b}?",
    "Describe {a}. Is it the same {noun} as {b}?",
    "Describe {a}, and tell me if it is the same {noun} as {b}.",
    "Tell me what {a} is and whether it has the same {noun} as {b}.",
    "What do you see in {a}, and is it the same {noun} as {b}?",
    "What is {a}, and are {a} and {b} the same {noun}?",
    "{a}: what is it, and is it the same {noun} as {b}?",
)
COMPOUND_BOTH = (
    "What are {a} and {b}?",
    "What is {a}, and what is {b}?",
    "What is {a} and what is {b}?",
    "Describe {a} and {b}.",
    "Tell me about {a} and {b}.",
    "{a} and {b}: what are they?",
    "What's in {a} and {b}?",
    "What do you see in {a} and in {b}?",
)

# about a new region, right after a question of the same kind
ELLIPSIS = ("And {a}?", "What about {a}?", "And what about {a}?", "How about {a}?", "The same for {a}, please.")
OPENERS = ("And ", "Now, ", "Then ", "So, ")
