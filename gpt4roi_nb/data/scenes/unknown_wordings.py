"""Questions that this world has no answer to, by topic; seen and unseen as in `held_out`.

`{a}` stands for a region; wordings without it are about the image, or about nothing in it.
"""

from gpt4roi_nb.data.scenes.held_out import Wordings

REGION: dict[str, Wordings] = {
    "doing": Wordings(
        (
            "What is {a} doing?",
            "What does {a} do?",
            "What is happening in {a}?",
            "What is going on in {a}?",
            "Is {a} moving?",
            "What action is {a} performing?",
            "What will {a} do next?",
        ),
        ("What is {a} about to do?", "What is happening at {a}?", "Tell me what {a} is doing."),
    ),
    "why": Wordings(
        (
            "Why is {a} there?",
            "Why is {a} here?",
            "Why is {a} on the table?",
            "Why is {a} next to {b}?",
            "Why did someone put {a} here?",
            "What is the reason for {a}?",
        ),
        ("Why does {a} stand there?", "Why did they put {a} on the table?", "Why are {a} and {b} here?"),
    ),
    "who": Wordings(
        (
            "Who made {a}?",
            "Who owns {a}?",
            "Who put {a} there?",
            "Whose is {a}?",
            "Who is {a}?",
            "Who does {a} belong to?",
        ),
        ("Who placed {a} here?", "Who is the owner of {a}?", "Do you know who made {a}?"),
    ),
    "used for": Wordings(
        (
            "What is {a} used for?",
            "What is {a} for?",
            "What can I do with {a}?",
            "How do you use {a}?",
            "What is the purpose of {a}?",
            "Is {a} useful?",
        ),
        ("What would you use {a} for?", "What could {a} be used for?", "Tell me the purpose of {a}."),
    ),
    "names": Wordings(
        (
            "What is the name of the owner of {a}?",
            "What brand is {a}?",
            "Does {a} have a name?",
            "What is the brand of {a}?",
            "What is written on {a}?",
        ),
        ("Which brand is {a}?", "What name does {a} have?"),
    ),
    "prices": Wordings(
        (
            "How much does {a} cost?",
            "What is the price of {a}?",
            "Is {a} expensive?",
            "Where can I buy {a}?",
            "How much is {a} worth?",
        ),
        ("How expensive is {a}?", "What does {a} cost?"),
    ),
    "feelings": Wordings(
        (
            "Is {a} happy?",
            "How does {a} feel?",
            "Do you like {a}?",
            "Is {a} beautiful?",
            "What do you think of {a}?",
        ),
        ("Is {a} sad?", "What does {a} feel?"),
    ),
    "history": Wordings(
        (
            "How old is {a}?",
            "Where was {a} made?",
            "When was {a} made?",
            "Where does {a} come from?",
            "What was {a} before?",
        ),
        ("How old is the object in {a}?", "Where did {a} come from?"),
    ),
    "measures": Wordings(
        (
            "How heavy is {a}?",
            "How much does {a} weigh?",
            "Is {a} hot or cold?",
            "What does {a} taste like?",
            "Is {a} hollow?",
        ),
        ("What is the weight of {a}?", "Is {a} hot?"),
    ),
}

IMAGE: dict[str, Wordings] = {
    "doing": Wordings(
        (
            "What is happening here?",
            "What is going on in the picture?",
            "What are the people doing?",
            "Is anybody doing something?",
            "What will happen next?",
            "What happened here?",
        ),
        ("What is happening in the image?", "What are they doing?", "What will they do next?"),
    ),
    "who": Wordings(
        (
            "Who took this picture?",
            "Who is in the picture?",
            "Who are they?",
            "Who lives here?",
            "What are they called?",
            "Who lives in this house?",
        ),
        ("Who can be seen in the image?", "Who took the image?", "What are their names?"),
    ),
    "place": Wordings(
        (
            "Where was this picture taken?",
            "Where is this?",
            "Which country is this?",
            "What city is this?",
            "Whose table is this?",
            "Is this a kitchen?",
        ),
        ("Where was the image taken?", "Which city is this?", "Which room is this?"),
    ),
    "weather": Wordings(
        (
            "How is the weather?",
            "What is the weather like?",
            "Is it raining?",
            "Is it cold?",
            "Is it sunny outside?",
        ),
        ("Is it snowing?", "What is the weather like outside?"),
    ),
    "time": Wordings(
        (
            "What time is it?",
            "What day is it?",
            "When was this taken?",
            "Is it day or night?",
            "What year is it?",
            "Which season is it?",
        ),
        ("When was the picture taken?", "What is the time?", "What month is it?"),
    ),
    "why": Wordings(
        (
            "Why was this picture taken?",
            "Why are these things here?",
            "Why are there so many objects?",
            "What does this mean?",
            "What is the meaning of this picture?",
        ),
        ("Why do these objects stand here?", "What does the picture mean?"),
    ),
    "history": Wordings(
        (
            "Who was the first president?",
            "When did the war end?",
            "What is the capital of France?",
            "How far is the moon?",
            "Tell me about history.",
            "What is the meaning of life?",
            "Who won the game?",
            "What is two plus two?",
        ),
        ("What is the capital of Spain?", "When did the first war end?", "How far is the sun?"),
    ),
}

CHAT: dict[str, Wordings] = {
    "greetings": Wordings(
        (
            "Hello!",
            "Hi",
            "Hello, how are you?",
            "Good morning.",
            "Hey there",
            "Nice to meet you.",
            "Thank you!",
            "Thanks a lot.",
            "Goodbye.",
        ),
        ("Hello there!", "Good evening.", "Hi, how are you?", "Thank you so much!"),
    ),
    "jokes": Wordings(
        (
            "Tell me a joke.",
            "Sing a song.",
            "Write a poem.",
            "Make me laugh.",
            "Tell me a story.",
            "Can you dance?",
        ),
        ("Do you know a joke?", "Write a story.", "Can you sing?"),
    ),
    "you": Wordings(
        (
            "Who are you?",
            "What is your name?",
            "How old are you?",
            "Are you a robot?",
            "How do you feel?",
            "Do you love me?",
            "Who made you?",
            "Where do you live?",
            "What can you do?",
        ),
        ("Tell me your name.", "Are you happy?", "Are you human?", "What are you?"),
    ),
}
