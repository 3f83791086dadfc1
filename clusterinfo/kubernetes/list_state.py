"""ListState: one attempt to list one unit within one reach: what came of it, and whether it may complete.

Pure: no I/O, no clock, no environment. The list source reports pages, items and failures here and learns the next
continue token or the verdict; who fetches, waits and sends is no concern of this module. A list completes only if all
its pages came, all of one resourceVersion, none older than the list before, every item could be read and has names that
an API server would take, and none is named twice; a list that goes in a circle has failed. By what its records are
ordered is known at its first page at the latest, and is the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterinfo.kubernetes.listed_keys import ListedKeys
from clusterinfo.kubernetes.pages import ListPage, SplitPage
from clusterinfo.model import CLOCK, GroupVersionResource, ListLane, Outcome, digest_hex, item_digest, version_number
from clusterinfo.statements import ListCompleted, ListFailed

PAGE_FAILURES = 5
"""Transient failures of one page in a row, after which its list failed (docs/DESIGN.md, section 4)."""
TOKEN_EXPIRIES = 2
"""Continue tokens that expired, after which a unit cannot be listed faster than its server forgets."""
EMPTY_PAGES = 1000
"""Pages in a row without an item, after which a list leads nowhere."""
NAMESPACE_CHARS, NAME_CHARS = 63, 253
"""A namespace is a DNS label, "at most 63 characters"; "most resource types require a name that can be used as a DNS
subdomain name", at most 253: Kubernetes, "Object Names and IDs"."""
TEXT_CHARS = 8192
"""Of an object's uid, resourceVersion, kind and apiVersion together, and of a list's resourceVersion: far more than any
has, and few enough for the headers of a message (64 KiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a list ended: `statement` is what the sink stores, `error` why it failed ("" if it completed)."""

    outcome: Outcome
    statement: ListCompleted | ListFailed
    error: str = ""
    is_too_slow: bool = False
    """True if its continue tokens expired: the server forgets faster than this list is read."""


class ListState:
    """One attempt; `again` makes the next one. Not to be used further once a verdict was given.

    `newest` is the version at which this list was last seen whole (0: never); a list that is older fails, unless the
    kind is ordered by the clock. `ordering` is what is known of that before.
    """

    def __init__(
        self, lane: ListLane, gvr: GroupVersionResource, list_id: str, *, newest: int = 0, ordering: str = ""
    ) -> None:
        self.lane = lane
        self.gvr = gvr
        self.id = list_id
        self.token = ""
        """Continue token of the next page; "" before the first."""
        self.version: str | None = None
        """resourceVersion of the list: that of its first page; None before that came."""
        self.ordering = ordering
        """`model.CLOCK`, or "" by version."""
        self.pages = 0
        self.count = 0
        self.is_whole = False
        """True once no further page is to be fetched."""
        self.defect = ""
        """Why this list may not complete although all its pages came."""
        self._keys = ListedKeys()
        self._newest = newest
        self._digest = 0
        self._tokens: set[int] = set()
        """The hashes of all continue tokens so far: 64 bytes a page."""
        self._empty_pages = 0
        """In a row."""
        self._failures = 0
        self._expiries = 0

    def again(self, list_id: str) -> ListState:
        """The next attempt, from the first page; it remembers how many continue tokens have expired."""
        attempt = ListState(self.lane, self.gvr, list_id, newest=self._newest, ordering=self.ordering)
        attempt._expiries = self._expiries
        return attempt

    # --- what came ---------------------------------------------------------------------------------------------------

    def admit(self, page: ListPage | SplitPage) -> bool:
        """Take note of a whole page; False if it cannot belong to this list, whose items are then not to be sent."""
        self._failures = 0
        if self.version is None and version_number(page.resource_version) is None:
            self.ordering = CLOCK
        if reason := self._why_foreign(page.resource_version) or self._why_endless(page):
            self.defect, self.is_whole = self.defect or reason, True
            return False
        self.version = page.resource_version
        self.pages += 1
        self.token = page.continue_token
        self.is_whole = not page.continue_token
        return True

    def add(self, namespace: str, name: str, resource_version: str) -> bool:
        """Count an item; False if the list named it before: it is not to be sent, and the list will not complete."""
        if not self._keys.add(f"{namespace}/{name}"):
            self.skip(f"the list names {f'{namespace}/' if namespace else ''}{name} twice")
            return False
        self.count += 1
        self._digest += item_digest(namespace, name, resource_version)
        return True

    def skip(self, reason: str) -> None:
        """Take note of an item that could not be read: the list will not complete."""
        self.defect = self.defect or reason

    def _why_endless(self, page: ListPage | SplitPage) -> str:
        """Why no page should be asked for after this one, although the server offers one; "" if that is in order."""
        if not page.continue_token:
            return ""
        self._empty_pages = 0 if page.items else self._empty_pages + 1
        if self._empty_pages >= EMPTY_PAGES:
            return f"the server sent {EMPTY_PAGES} pages in a row without an item, and offers another one"
        token = hash(page.continue_token)
        if token in self._tokens:
            return f"the continue token of page {self.pages + 1} came before: the server's pages go in a circle"
        self._tokens.add(token)
        return ""

    def _why_foreign(self, version: str) -> str:
        """Why a page of this resourceVersion cannot belong to this list; "" if it can."""
        if len(version) > TEXT_CHARS:
            return f"the list's resourceVersion has {len(version)} characters, at most {TEXT_CHARS} are read"
        if self.version not in (None, version):
            return f"page {self.pages} is of resourceVersion {version}, not {self.version}"
        if self.ordering == CLOCK:
            return ""
        if (number := version_number(version)) is not None and number < self._newest:
            return (
                f"the list's resourceVersion went back from {self._newest} to {number}: if the cluster was restored "
                "from a backup, raise CLUSTER_EPOCH by one and restart"
            )
        return ""

    # --- how it ends -------------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """Of a list that is whole."""
        if defect := self.defect or self._keys.defect:
            return self.failed(0, defect)
        statement = ListCompleted(self.count, digest_hex(self._digest))
        return Verdict(outcome=Outcome.COMPLETED, statement=statement)

    def failed(
        self,
        http_status: int,
        reason: str,
        *,
        outcome: Outcome = Outcome.FAILED,
        detail: str = "",
        is_too_slow: bool = False,
    ) -> Verdict:
        """It failed; `detail` is for the log alone."""
        return Verdict(
            outcome=outcome,
            statement=ListFailed(http_status, reason, sent=self.count),
            error=f"{reason}: {detail}" if detail else reason,
            is_too_slow=is_too_slow,
        )

    def after_failure(self, http_status: int, error: str) -> Verdict | None:
        """A page could not be fetched now. None: fetch it again."""
        self._failures += 1
        if self._failures < PAGE_FAILURES:
            return None
        return self.failed(http_status, f"{self._failures} failures in a row, the last: {error}")

    def after_refusal(self, http_status: int, reason: str, message: str) -> Verdict | None:
        """The server refused a page. None: its continue token expired, list `again`."""
        if http_status == 410 and self.token:
            return self._after_expiry()
        if http_status == 403:
            return self.failed(403, "Forbidden", outcome=Outcome.FORBIDDEN, detail=message)
        return self.failed(http_status, f"{reason}: {message}" if message else reason)

    def _after_expiry(self) -> Verdict | None:
        self._expiries += 1
        if self._expiries < TOKEN_EXPIRIES:
            return None
        reason = f"the continue token expired {self._expiries} times: {self._what_follows()}"
        return self.failed(410, reason, is_too_slow=True)

    def _what_follows(self) -> str:
        """What is done, or can be, about a server that forgets faster than this list is read."""
        if not self.gvr.namespaced or self.lane.reach:
            return "larger pages (PAGE_SIZE) take fewer requests"
        return (
            "listed namespace by namespace instead; what was in namespaces that are gone stays until a list of all "
            "completes"
        )


def too_long(namespace: str, name: str, *others: str) -> str:
    """Why no API server would take an object of this identity (`others`: its uid, versions, kind); "" if one would."""
    if len(namespace) > NAMESPACE_CHARS:
        return f"an item's namespace has {len(namespace)} characters, Kubernetes allows {NAMESPACE_CHARS}"
    if len(name) > NAME_CHARS:
        return f"an item's name has {len(name)} characters, Kubernetes allows {NAME_CHARS}"
    if (chars := sum(map(len, others))) > TEXT_CHARS:
        return f"the uid, versions and kind of {name} have {chars} characters, at most {TEXT_CHARS} are read"
    return ""
