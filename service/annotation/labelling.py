"""Finds in a project's labelling configuration where polyps belong: its tag, its names and its label."""

from dataclasses import dataclass
from xml.etree import ElementTree

from service.annotation.errors import ConfigError

TAGS = ("BrushLabels", "PolygonLabels", "RectangleLabels")  # that can hold a polyp, the most exact first
NEEDED = "add <BrushLabels> with a <Label> for polyps, whose toName is the name of an <Image>"


@dataclass(frozen=True)
class Control:
    """The tag of a configuration that takes the polyps."""

    type: str  # of its results: brushlabels, polygonlabels or rectanglelabels
    from_name: str  # its own name
    to_name: str  # of the image
    label: str
    field: str  # of a task's data that says where the picture is


def control_of(configuration: str) -> Control:
    """Return the tag for polyps; if there are several, the one whose regions are most exact.

    Raises:
        ConfigError: there is none, it is not known which of its labels means polyps, or the XML is not well formed.

    """
    try:
        root = ElementTree.fromstring(configuration)
    except ElementTree.ParseError as error:
        raise ConfigError(
            f"the labelling configuration is not XML ({error}); correct it in the settings of the project"
        ) from error
    images = {each.get("name", ""): each.get("value", "") for each in root.iter("Image")}
    for tag in TAGS:
        for element in root.iter(tag):
            for name in element.get("toName", "").split(","):
                if name in images:
                    field = images[name].removeprefix("$")
                    return Control(tag.lower(), element.get("name", ""), name, _label(element), field)
    raise ConfigError(f"the labelling configuration has no place for polyps; {NEEDED}")


def _label(element: ElementTree.Element) -> str:
    """Return the label for polyps: the one that is called so, or the only one."""
    labels = [each.get("value", "") for each in element.iter("Label")]
    named = [label for label in labels if "polyp" in label.lower()] or labels
    if len(named) == 1:
        return named[0]
    raise ConfigError(
        f"<{element.tag}> has {len(labels)} labels, and it is not clear which of them means polyps; "
        "name exactly one of them polyp"
    )
