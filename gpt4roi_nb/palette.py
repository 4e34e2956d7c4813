"""The colour of each region, the same in the chat, in plots and in previews."""

# Ten hues, each at least 3:1 against both white and JupyterLab's dark background (#111111), and told apart by
# people with the common colour deficiencies when next to the region's number (a colour never stands alone).
REGION_COLORS: tuple[str, ...] = (
    "#e8590c",
    "#1c7ed6",
    "#2f9e44",
    "#c2255c",
    "#9c36b5",
    "#0c8599",
    "#a86500",
    "#5c7cfa",
    "#d6336c",
    "#6a8000",
)


def region_color(number: int) -> str:
    """Hex colour of region `number` (1-based); colours repeat after ten regions."""
    return REGION_COLORS[(number - 1) % len(REGION_COLORS)]
