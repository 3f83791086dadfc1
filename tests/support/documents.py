"""Markdown, as far as tests read it."""

from __future__ import annotations

import re


def anchors(text: str) -> set[str]:
    """What headings can be linked as: lower case, spaces as hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
