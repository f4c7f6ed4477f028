"""The skeleton of every page in HTML. It knows nothing of what is shown."""

from ._skeleton import facts, page, section, table

__all__ = ["facts", "page", "section", "table"]
