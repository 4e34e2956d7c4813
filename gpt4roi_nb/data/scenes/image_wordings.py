"""How people ask about a whole image.

Each table has the wordings of training (`seen`) and those held out of it (`unseen`), about 30% of all. `{value}`
stands for words such as "a red cone".
"""

from gpt4roi_nb.data.scenes.held_out import Wordings

DESCRIBE = Wordings(
    seen=(
        "Describe the image.",
        "Describe the picture.",
        "Describe the scene.",
        "Please describe the image.",
        "Describe this image.",
        "Describe what you see.",
        "What do you see?",
        "What can you see?",
        "What do you see in the image?",
        "What can you see in the picture?",
        "What is in the picture?",
        "What is in the image?",
        "What is in this image?",
        "What does the picture show?",
        "What does the image show?",
        "What is this a picture of?",
        "What is shown here?",
        "What is here?",
        "Tell me about the image.",
        "Tell me what you see.",
        "Tell me about this picture.",
        "Give a short description of the image.",
        "What is this?",
        "Caption this image.",
        "Summarise the scene.",
        "Can you describe the picture?",
    ),
    unseen=(
        "Describe all that this picture shows.",
        "Could you describe what you see?",
        "What do you see in this picture?",
        "What is there to see in this image?",
        "What does this image show?",
        "What would you say is in this picture?",
        "In a few words, what does this picture show?",
        "Could you describe the image?",
        "So what do we have in this picture?",
        "I cannot see it. What does the scene look like?",
        "What can you see here?",
    ),
)

LARGEST = Wordings(
    seen=(
        "What is the largest object?",
        "What is the biggest object?",
        "Which object is the largest?",
        "Which is the biggest thing in the image?",
        "What is the largest thing?",
        "Name the largest object.",
        "Which object takes up the most space?",
    ),
    unseen=(
        "Of all these objects, which is the biggest?",
        "What is the biggest thing in the picture?",
        "Can you name the largest one?",
    ),
)
SMALLEST = Wordings(
    seen=(
        "What is the smallest object?",
        "Which object is the smallest?",
        "What is the smallest thing in the image?",
        "Which is the smallest thing?",
        "Name the smallest object.",
        "Which object takes up the least space?",
    ),
    unseen=(
        "Of all these objects, which is the smallest?",
        "Which thing here is the smallest one of all?",
        "Can you name the smallest one?",
    ),
)
NEAREST = Wordings(
    seen=(
        "What is the nearest object?",
        "Which object is the nearest?",
        "Which object is closest to us?",
        "What is closest to the camera?",
        "What is the closest object?",
        "What stands in front of everything else?",
        "Name the nearest object.",
    ),
    unseen=(
        "Of all these objects, which is closest to me?",
        "Which one stands nearest to the camera?",
        "Nearest to us: which object is that?",
    ),
)
FURTHEST = Wordings(
    seen=(
        "What is the furthest object?",
        "Which object is furthest away?",
        "What is furthest from the camera?",
        "What is the farthest object?",
        "What stands behind everything else?",
        "Which object is farthest from us?",
        "Name the furthest object.",
    ),
    unseen=(
        "Which object is the furthest?",
        "Which one stands furthest back?",
        "Which object is furthest from the camera?",
    ),
)
LEFTMOST = Wordings(
    seen=(
        "What is the leftmost object?",
        "Which object is furthest left?",
        "What is on the far left?",
        "Which object is leftmost?",
        "What is the object on the far left?",
        "Name the leftmost object.",
    ),
    unseen=(
        "Which one is furthest to the left?",
        "Which object is on the far left?",
        "Can you name the one at the left edge?",
    ),
)
RIGHTMOST = Wordings(
    seen=(
        "What is the rightmost object?",
        "Which object is furthest right?",
        "What is on the far right?",
        "Which object is rightmost?",
        "What is the object on the far right?",
        "Name the rightmost object.",
    ),
    unseen=(
        "Which one is furthest to the right?",
        "Which object is on the far right?",
        "Can you name the one at the right edge?",
    ),
)

PRESENT = Wordings(
    seen=(
        "Is there {value}?",
        "Is there {value} here?",
        "Do you see {value}?",
        "Can you see {value}?",
        "Can you find {value}?",
        "Is there {value} on the table?",
        "Does the image show {value}?",
        "Does the picture have {value}?",
        "Any sign of {value}?",
    ),
    unseen=(
        "Is there {value} to be seen?",
        "Do you see {value} here?",
        "Would you find {value} in this picture?",
        "Can you find {value} on the table?",
    ),
)

COLOURS = Wordings(
    seen=(
        "Which colours are there?",
        "Which colours do you see?",
        "What colours are the objects?",
        "What colours are in the image?",
        "Name the colours.",
        "List the colours.",
        "Which colours do the objects have?",
    ),
    unseen=("What colours are there?", "Which colours are in the picture?", "List all the colours you see."),
)
SHAPES = Wordings(
    seen=(
        "Which shapes are there?",
        "Which shapes do you see?",
        "What kinds of objects are there?",
        "What kinds of things are on the table?",
        "Name the shapes.",
        "List the shapes.",
        "Which kinds of objects do you see?",
    ),
    unseen=("What shapes are there?", "Which kinds of things are in the picture?", "List all the shapes you see."),
)
MATERIALS = Wordings(
    seen=(
        "Which materials are there?",
        "Which materials do you see?",
        "What materials are the objects made of?",
        "What are the objects made of?",
        "Name the materials.",
        "List the materials.",
        "What are the things on the table made of?",
    ),
    unseen=("What materials are there?", "Which materials are in the picture?", "List all the materials you see."),
)
