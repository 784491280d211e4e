"""Python types as JSON: from a type to its JSON schema, and from JSON to instances."""

from .reading import Misfit
from .scalars import Schema, Shape
from .walk import name_of, shape_of

__all__ = ["Misfit", "Schema", "Shape", "name_of", "shape_of"]
