"""Finding a family's row by the name of a class."""

from __future__ import annotations

from ..plugins import Registry, registry
from ..records import BadInput
from .row_types import Family
from .table import REFUSED

FAMILIES: Registry[Family] = registry("family")
# diffusers' models that are parts of a pipeline beside its transformer
OTHER_PARTS = (
    "Autoencoder",
    "AsymmetricAutoencoder",
    "UNet",
    "VQModel",
    "ControlNet",
    "T2IAdapter",
)
HYBRID = "Hybrid"  # a student with custom blocks is of class Hybrid<stock class>


def is_hybrid(class_name: str) -> bool:
    """Whether a class name is that of a student with custom blocks."""
    return class_name.startswith(HYBRID)


def find_family(class_name: str) -> Family | None:
    """The family of a transformer class, or of our hybrid students of it, if there is one."""
    stock = class_name.removeprefix(HYBRID)
    for family in FAMILIES.values():
        if family.transformer == stock:
            return family
    return None


def by_class(class_name: str) -> Family:
    """The family of a transformer class, or of our hybrid students of that class.

    Raises BadInput for a class that cannot be handled, with the reason, and for one the table
    lacks, with how to add it.
    """
    family = find_family(class_name)
    if family is not None:
        return family
    known = "one of " + ", ".join(sorted(f.transformer for f in FAMILIES.values()))
    if class_name in REFUSED:
        found = f"transformer class {class_name} ({REFUSED[class_name]})"
        raise BadInput(found, known, "use another teacher")
    if class_name.startswith(OTHER_PARTS):
        raise BadInput(
            f"{class_name} is not a transformer",
            "a diffusion transformer, or the pipeline that it is part of",
            "point to the pipeline, or to its folder transformer",
        )
    raise BadInput(
        f"transformer class {class_name} is not in the families table",
        known,
        "register a family (docs/add-a-family.md)",
    )
