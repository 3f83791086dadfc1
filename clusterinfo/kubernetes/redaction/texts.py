"""Secrets within texts: `name=value`, `--name value`, `name: value`, where the name looks secret. Pure; linear time.

| form | as in | what is replaced |
|---|---|---|
| `name=value`, `name => "x"` | arguments, DSN, JDBC, SAS, scripts | up to white space, a quote, or the next `name=` |
| `--name value` | scripts in one argument | one word, or what is quoted |
| `name: value` | YAML (Helm values), headers | the rest of the line, a block, the items of a list, or what is quoted |
| `"name":"value"` | JSON within a text | what is quoted |
| `name: X`, `value: y` | an environment in YAML, or as Go prints it | the value |
| `password 'x'`, `identified by 'x'` | SQL | what is quoted |

A value that is no secret may hold the next name: `Error: password: x`, a block of YAML within YAML.
In the middle of a sentence `name: value` counts only where the value is no word: `invalid token: expired` stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clusterinfo.kubernetes.redaction import names
from clusterinfo.kubernetes.redaction.names import NOTHING, Verdict, judge, words_of
from clusterinfo.kubernetes.redaction.places import VALUE_MEMBERS
from clusterinfo.kubernetes.redaction.values import Conceal, is_harmless

NEEDLES = (*names.NEEDLES, "identified")
"""In lower case: one of them is in every text that the rules below change."""

_NAME = r"(?<![\w.])(?P<name>[A-Za-z_][\w.\-]{0,99}+)(?![\w.\-])"
_CONTENT = (
    r"(?>(?:(?(escape)(?!(?<!\\)(?P=quote))[^\n]|(?:\\[^\n]|(?!(?P=quote))[^\n\\]))){0,4000})(?=(?P=quote))"
    r"|(?>(?:(?!(?P=quote))[^\n]){0,4000})"
)
_QUOTE = r"(?P<quote>(?P<escape>(?<!\\)\\++|\\{1,15}+)?[\"'])"  # no run of backslashes is read from each of them
_QUOTED = rf"{_QUOTE}(?P<quoted>{_CONTENT})(?P=quote)"
"""An escaped quote within does not end it."""
_OPEN_QUOTED = rf"{_QUOTE}(?P<quoted>{_CONTENT})(?:(?P=quote)|(?P<open>[^\s\"']*+))"
"""The same, or as far as it goes: messages are cut, and some values are longer than is read here."""

_ASSIGNED = re.compile(rf"{_NAME}(?:[ ]?=(?![=~>])[ ]?|[ ]?=>[ ]?(?=[\"']))")
_NEXT = r"[&;,][\w.%+\-]{1,60}="
_ASSIGNED_VALUE = re.compile(rf"{_OPEN_QUOTED}|(?P<bare>(?!\\|{_NEXT})[^\s\"']+?(?=[\s\"']|{_NEXT}|\Z))")
_MAX_HARMLESS_CHARS = 1000
"""A longer bare value behind `=` is secret without a look: in `token=$(token=$(...` each would be read to the end."""
_COLON = re.compile(
    rf"(?P<before>(?:^|[\n{{,;\"'(\[])[ \t]*(?:- +|\? +)?|[ /]){_NAME}:[ \t]+(?P<marks>(?:[&!][\w!./:\-]*+[ \t]+)?)"
)
_BLOCK = r"(?=\n++[ \t])[\s\S]+?(?<!\n)(?=\n++(?![ \t])|\Z)"
_COLON_VALUE = re.compile(rf"(?P<block>[|>][-+\d]*[ \t]*{_BLOCK})|{_OPEN_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"']*+)")
_COLON_WORD = re.compile(rf"{_OPEN_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\s\"']*+)")
_COLON_FLOW = re.compile(rf"{_OPEN_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"',{{}}\[\]]*+)")
_FLOW_ENDS = re.compile(r"[^\n{}\"']{0,400}+\}")
_LINE_OF_LIST = r"\n[ \t]*+-[ ]++(?![\w.\-/]+:(?:\s|\Z))[^\s{\[&*|>]"
_LIST = re.compile(
    rf"(?:^|[\n{{,])[ \t]*(?:- +)?{_NAME}:[ \t]*+"
    rf"(?P<items>\[[^\n\[\]{{}}]*+\]|(?={_LINE_OF_LIST})[\s\S]+?(?=(?!{_LINE_OF_LIST})\n|\Z))"
)
_ITEM = re.compile(r"(?P<before>(?:[\[,]|\n[ \t]*-)[ \t]*[\"']?)(?P<item>[^\n\"',\[\]]++)")
_JSON = re.compile(rf"{_QUOTE}(?P<name>[\w.\-/]{{1,100}}+)(?P=quote)\s{{0,20}}:\s{{0,20}}(?P<opening>(?P=quote))")
_JSON_VALUE = re.compile(_QUOTED)
_FLAG = re.compile(
    rf"(?:(?<=\s)|(?<![\s\S]))--?{_NAME}(?P<gap>[ \t]+)(?:{_QUOTED}|(?P<bare>[^\s\"'\-|<>&;][^\s\"']*+))"
)
_PAIR_NAME = r"(?i:name|key)\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?(?P<name>[\w.\-/]{2,100}+)\\*[\"']?[ \t]*"
_PAIR_VALUE = rf"\\*[\"']?(?i:{'|'.join(VALUE_MEMBERS)})\\*[\"']?[ \t]*[:=][ \t]*"
_YAML_PAIR = re.compile(rf"{_PAIR_NAME}\n[ \t]*{_PAIR_VALUE}(?:{_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"']*+))")
_PAIR = re.compile(rf"{_PAIR_NAME}(?:,[ \t]*|(?<=[ \t])){_PAIR_VALUE}(?:{_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#\\,}}]++))")
_REVERSED_PAIR = re.compile(
    rf"(?:(?<=\n)|(?<![\s\S]))(?:[ \t]*(?:- +)?){_PAIR_VALUE}(?:{_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"']*+))"
    rf"(?=[ \t]*\n[ \t]*{_PAIR_NAME}(?:\n|\Z))"
)
_SQL = re.compile(
    r"(?i:\bpassword|\bidentified[ ]+by)[ ]+(?P<quote>\\*+[\"'])(?P<quoted>(?>(?:[^\n\"']|''){1,1000}))(?P=quote)"
)
_ARGUMENT = re.compile(rf"--?{_NAME}=(?P<quoted>(?P<quote>)(?!.*\s-)[\s\S]+)")
_SIGNATURE = re.compile(r"(?i:(?<=[?&;])(?:sig|x-amz-signature|x-goog-signature|signature)=)(?P<bare>[^\s\"'&;]{8,}+)")

_PART_CHARS, _OVERLAP_CHARS = 65_536, 32
_PROSE = words_of(
    "a an and are argument as at be by can cannot could default expired failed file flag for from has if in instead "
    "invalid is it may missing must no not of on one option or parameter provided required set should that the this "
    "to unauthorized unset used value was when where will with without you your"
)
_SENTENCE = re.compile(r"[A-Za-z][a-z'-]*[.,:;!?]?(?:\s.*)?", re.DOTALL)


def _may_hold_secrets(text: str) -> bool:
    """False if none of the needles is in the text, which is lowered in parts: it may be long."""
    parts = (text[start : start + _PART_CHARS].lower() for start in range(0, len(text), _PART_CHARS - _OVERLAP_CHARS))
    return any(needle in part for part in parts for needle in NEEDLES)


def rewrite(text: str, conceal: Conceal) -> str:
    """`text` with what `conceal` returns in place of every value whose name looks secret."""
    if not _may_hold_secrets(text):
        return text
    if (argument := _ARGUMENT.fullmatch(text)) and judge(argument["name"]).is_secret:
        return _named(argument, conceal, judge(argument["name"]))
    if "=" in text:
        text = _replaced(text, _ASSIGNED, _assigned, conceal)
        text = _SIGNATURE.sub(lambda found: _put(found, "bare", conceal(found["bare"])), text)
    if ":" in text or "=" in text:
        text = _pairs(text, conceal)
    if ":" in text:
        text = _replaced(text, _JSON, _json, conceal)
        text = _replaced(text, _COLON, _colon, conceal)
        text = _LIST.sub(lambda found: _listed(found, conceal), text)
    if "-" in text:
        text = _FLAG.sub(lambda found: _flag(found, conceal), text)
    return _SQL.sub(lambda found: _put(found, "quoted", conceal(found["quoted"])), text)


def _pairs(text: str, conceal: Conceal) -> str:
    for pair in (_YAML_PAIR, _PAIR, _REVERSED_PAIR):
        text = pair.sub(lambda found: _named(found, conceal), text)
    return text


Span = tuple[int, int]


def _replaced(text: str, head: re.Pattern[str], find: Callable[[re.Match[str]], Span | None], conceal: Conceal) -> str:
    """`text` with the secret that `find` finds behind each `head` replaced. What is none may hold the next head."""
    parts, done, at = [], 0, 0
    while found := head.search(text, at):
        at = found.end() - 1  # a blank may begin the next one
        if span := find(found):
            parts += [text[done : span[0]], conceal(text[slice(*span)])]
            done = at = span[1]
    return "".join([*parts, text[done:]])


def flag_of(text: str) -> str:
    """The name in an argument that is a flag and nothing else (`--password`, `-token`), whose value comes next."""
    found = _FLAG_ALONE.fullmatch(text)
    return found[1] if found and judge(found[1]).is_secret else ""


_FLAG_ALONE = re.compile(r"--?([A-Za-z_][\w.\-]{0,99})", re.ASCII)


def _put(found: re.Match[str], group: str, shown: str) -> str:
    start, end = (edge - found.start() for edge in found.span(group))
    return found[0][:start] + shown + found[0][end:]


def _value(found: re.Match[str]) -> tuple[str, str]:
    return ("quoted", found["quoted"]) if found["quoted"] is not None else ("bare", found["bare"])


def _named(found: re.Match[str], conceal: Conceal, verdict: Verdict = NOTHING) -> str:
    verdict = verdict if verdict.is_secret else judge(found["name"])
    group, value = _value(found)
    if not verdict.is_secret or not _unless_harmless(value, 0, verdict, found["name"]):
        return found[0]
    return _put(found, group, conceal(value))


def is_concealed(value: str) -> bool:
    """True for what another rule has replaced already."""
    return value.startswith(("redacted:len<=", "hmac-sha256:"))


def _assigned(found: re.Match[str]) -> Span | None:
    verdict = judge(found["name"])
    value = _ASSIGNED_VALUE.match(found.string, found.end()) if verdict.is_secret else None
    if value is None:
        return None
    if value["bare"] is None:
        return _quoted(value, verdict, found["name"])
    secret, start = value["bare"].rstrip("&;,)"), value.start("bare")
    if len(secret) > _MAX_HARMLESS_CHARS:
        return start, start + len(secret)
    return _unless_harmless(secret, start, verdict, found["name"])


def _unless_harmless(secret: str, start: int, verdict: Verdict, name: str) -> Span | None:
    if not secret or is_harmless(secret.strip(), verdict, name) or is_concealed(secret):
        return None
    return start, start + len(secret)


def _quoted(value: re.Match[str], verdict: Verdict, name: str) -> Span | None:
    secret = value["quoted"] + (value["open"] or "")
    if value["open"] is not None and secret[:1] in (" ", ";", ")", "]", ","):
        return None  # the quote ends a text, and begins none
    return _unless_harmless(secret, value.start("quoted"), verdict, name)


def _json(found: re.Match[str]) -> Span | None:
    verdict = judge(found["name"])
    value = _JSON_VALUE.match(found.string, found.start("opening")) if verdict.is_secret else None
    return value and _unless_harmless(value["quoted"], value.start("quoted"), verdict, found["name"])


def _colon(found: re.Match[str]) -> Span | None:
    verdict = judge(found["name"])
    if not verdict.is_secret:
        return None
    form = _form(found)
    value = form.match(found.string, found.end())
    if value is None:
        return None
    if form is _COLON_VALUE and value["block"] is not None:
        return value.span("block")
    if value["bare"] is None:
        return _quoted(value, verdict, found["name"])
    bare = _bare(found, value["bare"], verdict, form)
    return _unless_harmless(bare, value.start("bare"), verdict, found["name"])


def _form(found: re.Match[str]) -> re.Pattern[str]:
    """How far a value reaches: in the middle of a sentence a word, in braces up to the next name, else a line."""
    before, start = found["before"], found.start()
    if start == 0 or "\n" in before:
        return _COLON_VALUE
    if before[:1] in ("{", "["):
        return _COLON_FLOW
    if before[:1] in (",", ";"):
        return _COLON_FLOW if _FLOW_ENDS.match(found.string, found.end()) else _COLON_WORD
    return _COLON_WORD if before in (" ", "(", "/") else _COLON_VALUE


def _bare(found: re.Match[str], bare: str, verdict: Verdict, form: re.Pattern[str]) -> str:
    """What of it is the value; "" if it goes on with a sentence."""
    if form is _COLON_WORD:
        word = bare.rstrip(",;)}]")
        return "" if not verdict.is_strong or _SENTENCE.fullmatch(word) else word
    if form is _COLON_FLOW:
        return bare.rstrip()
    return "" if found.start() == 0 and _is_prose(bare) else bare


def _listed(found: re.Match[str], conceal: Conceal) -> str:
    verdict = judge(found["name"])
    if not verdict.is_secret:
        return found[0]

    def shown(item: re.Match[str]) -> str:
        span = _unless_harmless(item["item"].rstrip(), 0, verdict, found["name"])
        return item["before"] + conceal(item["item"].rstrip()) if span else item[0]

    return _put(found, "items", _ITEM.sub(shown, found["items"]))


def _is_prose(bare: str) -> bool:
    """True for the rest of a message that begins with the name: `token: has expired at noon`."""
    words = bare.partition(" #")[0].split()
    return len(words) > 2 or (bool(words) and words[0].lower() in _PROSE)


def _flag(found: re.Match[str], conceal: Conceal) -> str:
    bare = found["bare"]
    if bare is not None and bare.lower().rstrip(".,;:)") in _PROSE:
        return found[0]
    return _named(found, conceal)
