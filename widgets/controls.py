"""What clicks and keys in the browser do to a `RegionChat`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4roi_nb.widgets.image_picker import gallery_scene
from gpt4roi_nb.widgets.regions import mentions

if TYPE_CHECKING:
    from gpt4roi_nb.widgets.region_chat import RegionChat


class Controls:
    """Listens to the conversation's and the picker's messages; their docstrings list them."""

    def __init__(self, chat: RegionChat) -> None:
        self._chat = chat
        self._warned: tuple[int, ...] = ()  # keys of the regions that the user knows to be unnamed
        chat.conversation.on_msg(self._told)
        chat.picker.on_msg(self._picked)

    def _told(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        chat = self._chat
        kind = content.get("type")
        if kind == "ask":
            chat.guard(lambda: self._ask(str(content.get("text", ""))))
        elif kind == "stop":
            chat.stop()
        elif kind == "undo":
            chat.guard(chat.undo)
        elif kind == "new":
            chat.guard(chat.new_conversation)
        elif kind == "inspect":
            turn = int(content["turn"])
            chat.in_background("Looking inside the answer…", lambda: chat.inspect_answer(turn))
        elif kind == "image":
            chat.picker.opened = not chat.picker.opened
            if chat.picker.opened and not chat.picker.thumbnails:
                chat.in_background("Setting scenes up…", chat.picker.show_more)

    def _picked(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        chat = self._chat
        kind = content.get("type")
        if kind == "more":
            chat.in_background("Setting scenes up…", chat.picker.show_more)
        elif kind == "scene":
            seed = int(content["seed"])
            chat.in_background("Looking at the image…", lambda: chat.open(gallery_scene(seed)))
        elif kind == "file":
            data = bytes(buffers[0])
            chat.in_background("Looking at the image…", lambda: chat.open(data))

    def region(self, number: int) -> None:
        """Somebody wants to look inside a region."""
        chat = self._chat
        chat.in_background("Looking inside the region…", lambda: chat.inspect_region(number))

    def _ask(self, text: str) -> None:
        """Asks what was typed. On any error the text stays in its line."""
        talk, new = self._chat.conversation, self._chat.canvas.book.new
        unnamed = tuple(region.key for region in new)
        if text.strip() and unnamed and unnamed != self._warned and not mentions(text):
            # Neither silently about the whole image, nor silently about the box.
            self._warned = unnamed
            talk.problem = ""
            talk.notice = _unnamed_words([region.number for region in new])
            return
        self._chat.start(text, typed=True)


def _unnamed_words(numbers: list[int]) -> str:
    if len(numbers) == 1:
        drawn, it = f"region {numbers[0]}", "it"
    else:
        drawn, it = f"regions {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}", "them"
    return (
        f"You drew {drawn}, but the question does not name {it}. Insert {it} with the buttons below, or press Enter "
        "again to ask about the whole image."
    )
