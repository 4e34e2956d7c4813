"""Other region models behind the same session: ways to tell a model a box, and the models themselves."""
