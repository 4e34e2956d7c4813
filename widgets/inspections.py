"""The inspector below a chat that was opened from it: one at a time, with a button to close it."""

from __future__ import annotations

from typing import Protocol

from ipywidgets import Button, HBox, Label, VBox, Widget


class Closable(Protocol):
    """An inspector that can be opened here."""

    def close(self) -> None:
        """Release the widgets."""


class Inspections:
    """`widget` is what the notebook shows; it is empty until an inspector is opened."""

    def __init__(self) -> None:
        self.widget = VBox([])
        self.widget.add_class("gpt4roi-inspections")
        self.inspector: Closable | None = None

    def open(self, title: str, inspector: Closable, view: Widget) -> None:
        """Show an inspector instead of the previous one. view: its widget."""
        before, self.inspector = self.inspector, inspector
        button = Button(description="Close", tooltip=f"Close: {title}")
        button.on_click(lambda _: self.close())
        self.widget.children = (HBox([Label(title), button]), view)
        if before is not None:
            before.close()

    def close(self) -> None:
        """Remove the inspector from the page, if there is one."""
        before, self.inspector = self.inspector, None
        self.widget.children = ()
        if before is not None:
            before.close()
