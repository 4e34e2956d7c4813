"""Wordings of questions and requests, several of each, so that a model learns the meaning and not one sentence.

`{region}` stands for a reference to one region, `{regions}` for a list of references. No wording mentions words,
letters or signs, since an image whose text does is not mirrored (see `augmentation`, which allows `LETTER_REQUEST`).
"""

# The opening of VCR's protocol, word for word; references are joined by commas.
VCR_OPENING = "{regions} refers to specific areas within the photo along with their respective identifiers."
# The end of a multiple-choice question.
LETTER_REQUEST = "Reply with its letter."

CATEGORY_QUESTIONS = (
    "What is {region}?",
    "Name the thing in {region}.",
    "Which kind of object does {region} show?",
    "Very briefly, what is {region}?",
    "What would you call the object at {region}?",
    "Tell me the category of {region}.",
    "{region}: what is it?",
    "What sort of thing is marked as {region}?",
    "Give the name of what you see in {region}.",
    "Can you identify {region}?",
    "What object does {region} enclose?",
    "Answer briefly: what is {region}?",
)
EXPRESSION_QUESTIONS = (
    "How would you point out {region} to somebody without pointing?",
    "Give a phrase by which one finds {region} in this picture.",
    "Describe {region} so that it cannot be mistaken for anything else here.",
    "What short description picks out {region}?",
    "Refer to {region} briefly.",
    "How does {region} differ from the rest? Answer with a phrase.",
    "By which phrase would a friend know that you mean {region}?",
    "Tell {region} apart from everything around it in one phrase.",
    "Give an expression that means {region} and nothing else.",
    "If you had to ask a stranger for {region}, what would you call it?",
    "Which brief wording singles out {region}?",
    "Help me find {region}: what am I looking for?",
)
CAPTION_QUESTIONS = (
    "What can be seen in {region}?",
    "Describe {region} in a sentence.",
    "Give a short caption for {region}.",
    "What is going on in {region}?",
    "Tell me about {region}.",
    "Look at {region} only. What is there?",
    "How would you caption the part of the picture marked {region}?",
    "Explain what {region} shows.",
    "Sum up {region} briefly.",
    "What does the picture show at {region}?",
    "Give one remark about {region}.",
    "What do you notice in {region}?",
)
GROUNDING_QUESTIONS = (
    "Describe the picture, and where {regions} come in.",
    "What happens in this picture? Mention {regions} as you go.",
    "Give one sentence about the whole scene that refers to {regions}.",
    "Tell me what the picture shows, and what part {regions} play in it.",
    "Caption this picture; put {regions} beside what they show.",
    "Sum up the scene and point at {regions} in your answer.",
    "With {regions} in mind, what is the picture about?",
    "Describe everything at once, and mark what {regions} are.",
    "Give a caption in which {regions} appear.",
    "How do {regions} fit into the scene? Describe it in a sentence.",
    "Look at {regions}, then describe the picture as a whole with them.",
    "Tell in a sentence what is to be seen, naming {regions}.",
)
# What leads from an answer to its rationale.
WHY_QUESTIONS = (
    "Why do you think so?",
    "What makes you believe that?",
    "How can you tell?",
    "What in the picture supports this?",
    "Explain your answer.",
    "On what grounds?",
    "Give your reason.",
    "What leads you to this conclusion?",
    "Which details did you go by?",
    "Please justify that.",
    "How did you arrive at it?",
    "What is that based on?",
)
# Before a question that does not itself name all regions of its answer.
POINTERS = (
    "Look at {regions}.",
    "This is about {regions}.",
    "Consider {regions}.",
    "Here are {regions}.",
    "Keep an eye on {regions}.",
    "I have marked {regions}.",
    "Pay attention to {regions}.",
    "The question concerns {regions}.",
    "Take {regions} into account.",
    "With regard to {regions}:",
)
# Before a conversation about a whole image in which a detector has found things.
DETECTED = (
    "Things found in the picture: {regions}.",
    "A detector has marked {regions}.",
    "The picture holds {regions}, among others.",
    "These parts stand out: {regions}.",
    "For orientation, here are {regions}.",
    "Objects in view: {regions}.",
    "Boxes were drawn round {regions}.",
    "You may make use of {regions}.",
    "Noticed so far: {regions}.",
    "Marked areas: {regions}.",
)
# The same, where the detector names what it has found: `<region1> may feature a dog, <region2> may feature a cup`.
NAMED = (
    "Some parts of the image, as a detector sees them: {regions}.",
    "A detector has this of parts of the image: {regions}.",
    "Regions that may help: {regions}.",
    "What was detected: {regions}.",
    "Notes on regions of this image: {regions}.",
    "Guesses about what is where: {regions}.",
    "From a detector, which may be wrong: {regions}.",
    "Here is a list of regions: {regions}.",
    "Regions and what they may hold: {regions}.",
    "Found so far, without certainty: {regions}.",
)
