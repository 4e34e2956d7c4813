"""All tables of wordings of the generated world."""

from gpt4roi_nb.data.scenes import image_wordings, region_wordings, unknown_wordings, unseen_wordings, wordings
from gpt4roi_nb.data.scenes.held_out import Wordings


def wording_tables() -> dict[str, Wordings]:
    """Each table of the world, by name: the wordings of training, and those held out of it."""
    found = {
        f"{module.__name__}.{name}": table
        for module in (image_wordings, region_wordings)
        for name, table in vars(module).items()
        if isinstance(table, Wordings)
    }
    groups = {"region": unknown_wordings.REGION, "image": unknown_wordings.IMAGE, "chat": unknown_wordings.CHAT}
    groups["it"] = region_wordings.IT
    found |= {f"{name} {key}": table for name, group in groups.items() for key, table in group.items()}
    old = {name: table for name, table in vars(unseen_wordings).items() if name.isupper()}
    return found | {name: Wordings(getattr(wordings, name), table) for name, table in old.items()}
