"""The inspector that was opened from a chat, below it: one at a time, with a button to close it."""

from __future__ import annotations

from typing import Protocol

from ipywidgets import Button, HBox, Label, VBox, Widget


class Closable(Protocol):
    """What can be opened here."""

    def close(self) -> None:
        """Gives the widgets back."""


class Inspections:
    """`widget` is what a notebook shows: nothing, until something is opened."""

    def __init__(self) -> None:
        self.widget = VBox([])
        self.widget.add_class("gpt4roi-inspections")
        self.inspector: Closable | None = None

    def open(self, title: str, inspector: Closable, view: Widget) -> None:
        """Shows an inspector in the place of the one before. view: its widget."""
        before, self.inspector = self.inspector, inspector
        button = Button(description="Close", tooltip=f"Close: {title}")
        button.on_click(lambda _: self.close())
        self.widget.children = (HBox([Label(title), button]), view)
        if before is not None:
            before.close()

    def close(self) -> None:
        """Takes the inspector off the page, if there is one."""
        before, self.inspector = self.inspector, None
        self.widget.children = ()
        if before is not None:
            before.close()
