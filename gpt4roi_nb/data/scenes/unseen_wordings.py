"""Held-out wordings: each table has further ways to ask what the table of the same name in `wordings` asks.

Training never sees them; the demo's check asks them to tell understanding from memorising. They are about 30% of all
wordings. Most of their words occur in training's wordings too, so that the sentence is what is new.
"""

CATEGORY = (
    "What kind of thing do you see here: {a}?",
    "Please tell me what shape {a} has.",
    "Which kind of thing do you see in {a}?",
    "What type of thing is {a}?",
    "Say what kind of object {a} is.",
    "What is the category of the object in {a}?",
    "Look at {a} and name its shape.",
    "{a}: which category is it?",
)
CATEGORY_CHECK = ("Do you see a {value} in {a}?", "Would you say that {a} is a {value}?")

COLOUR = (
    "Which colour would you say {a} has?",
    "Look at {a} and name its colour.",
    "What is the colour of the object in {a}?",
    "{a}: which colour does it have?",
    "Say what colour {a} is.",
    "Could you tell me which colour {a} has?",
    "I would like to know the colour of {a}.",
)
COLOUR_CHECK = ("Would you say that {a} is {value}?",)

MATERIAL = (
    "Please tell me the material of {a}.",
    "{a}: which material is it made of?",
    "The thing in {a}: what is it made of?",
    "Could you tell me what material {a} is made of?",
    "What stuff is {a} made of?",
    "Look at {a} and name its material.",
)
MATERIAL_CHECK = ("Would you say that {a} is {value}?",)

SIZE = (
    "Please tell me how big {a} is.",
    "{a}: what size is it?",
    "Is the thing in {a} big or small?",
    "How large is the object in {a}?",
    "Could you tell me the size of {a}?",
    "Would you say that {a} is small or large?",
)
SIZE_CHECK = ("Would you say that {a} is {value}?",)

PHRASE = (
    "Please tell me what {a} is.",
    "Say what you see in {a}.",
    "Please give a description of {a}.",
    "Could you tell me more about {a}?",
    "Could you say what the thing in {a} is?",
    "What thing do you see at {a}?",
    "Look at {a} and describe it.",
    "Could you describe {a} for me?",
    "{a}: describe it, please.",
    "What am I looking at in {a}?",
)

SAME = (
    "Tell me if {a} and {b} have the same {noun}.",
    "Do the objects in {a} and {b} have the same {noun}?",
    "{a} and {b}: is the {noun} the same?",
    "Is the {noun} the same in {a} and {b}?",
    "Look at {a} and {b}. Do they have the same {noun}?",
    "Are {a} and {b} of the same {noun}?",
    "Would {a} and {b} have the same {noun}?",
    "Can you tell me whether {a} and {b} share the same {noun}?",
)
SAME_KIND = ("Do {a} and {b} show the same kind of object?",)
SAME_MADE = ("Are the objects in {a} and {b} made of the same material?",)
DIFFERENT = ("Are {a} and {b} different in {noun}?",)
SAME_IT = ("Would you say it is the same {noun} as {b}?",)

LARGER_WHICH = (
    "Which of the two is larger, {a} or {b}?",
    "Look at {a} and {b}. Which is bigger?",
    "{a} and {b}: which one is larger?",
    "I compare {a} and {b}. Which is larger?",
)
SMALLER_WHICH = ("Look at {a} and {b}. Which is smaller?", "{a} and {b}: which one is smaller?")
LARGER_CHECK = ("Would you say that {a} is larger than {b}?",)
SMALLER_CHECK = ("Would you say that {a} is smaller than {b}?",)

LEFT_RIGHT = (
    "Tell me if {a} is left or right of {b}.",
    "Does {a} stand to the left or to the right of {b}?",
    "{a} and {b}: is the first left or right of the second?",
)
LEFT_CHECK = ("Would you say that {a} is left of {b}?",)
RIGHT_CHECK = ("Would you say that {a} is right of {b}?",)
LEFT_WHICH = ("Which of {a} and {b} is further left?",)
RIGHT_WHICH = ("Which of {a} and {b} is further right?",)

FRONT_BEHIND = (
    "Tell me if {a} is in front of or behind {b}.",
    "{a} and {b}: is the first in front of or behind the second?",
)
FRONT_CHECK = ("Is {a} nearer to us than {b}?",)
BEHIND_CHECK = ("Look at {a}. Is it behind {b}?",)
FRONT_WHICH = ("Which of {a} and {b} is closer?",)
BEHIND_WHICH = ("Which of {a} and {b} is further away?",)

COUNT = (
    "I want the number of {things} that you see.",
    "Can you tell me how many {things} there are?",
    "What number of {things} do you see?",
    "Count all the {things} in the image.",
    "How many {things} do you see on the table?",
    "Please tell me the number of {things}.",
)

WHICH = (
    "Please list all the objects.",
    "Which things do you see on the table?",
    "Which objects can you name on the table?",
)
THERE_IS = (
    "Would you find {value} in the image?",
    "Do you see {value} on the table?",
    "Can you see {value} in the picture?",
)

COMPOUND_SAME = (
    "Tell me what {a} is, and is it the same {noun} as {b}?",
    "What is {a}, and does it share the same {noun} with {b}?",
    "Look at {a}. What is it, and is it the same {noun} as {b}?",
    "Please describe {a}, and tell me whether it has the same {noun} as {b}.",
    "Tell me about {a}. Has it the same {noun} as {b}?",
)
COMPOUND_BOTH = ("What do {a} and {b} show?", "First {a}, then {b}: what are they?", "Tell me what {a} and {b} are.")

ELLIPSIS = ("And what of {a}?", "The same question for {a}.")
