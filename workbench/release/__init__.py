"""A student's folder made ready for others: files, model card, pictures, licence; then the Hub."""

from .evidence import Evidence
from .folder import release
from .licence import Licence, read_licence
from .push import push

__all__ = ["Evidence", "Licence", "push", "read_licence", "release"]
