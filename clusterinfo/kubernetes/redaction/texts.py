"""Secrets within texts: `name=value`, `--name value`, `name: value`, where the name looks secret. Pure; linear time.

| form | as in | what is replaced |
|---|---|---|
| `name=value` | arguments, DSN, JDBC, SAS, scripts, messages | up to white space, a quote, or the next `name=` |
| `--name value` | scripts in one argument | one word, or what is quoted |
| `name: value` | YAML (Helm values), headers | the rest of the line, a block, or what is quoted |
| `"name":"value"` | JSON within a text | what is quoted |
| `name: X`, `value: y` | an environment in YAML | the value |
| `password 'x'`, `identified by 'x'` | SQL | what is quoted |

In the middle of a sentence `name: value` counts only where the value is no word: `invalid token: expired` stays.
"""

from __future__ import annotations

import re

from clusterinfo.kubernetes.redaction.names import NOTHING, Verdict, judge, words_of
from clusterinfo.kubernetes.redaction.values import Conceal, is_harmless

NEEDLES = (
    *("pass", "pw", "secret", "token", "cred", "cookie", "psk", "pat", "pin", "jwt", "key", "auth", "kubeconfig"),
    *("connection", "sig", "identified"),
)
"""In lower case: one of them is in every text that the rules below change."""

_NAME = r"(?<![\w.])(?P<name>[A-Za-z_][\w.\-]{0,99}+)(?![\w.\-])"
_QUOTED = r"(?P<quote>\\*+[\"'])(?P<quoted>(?:(?!(?P=quote))[^\n]){0,4000}+)(?P=quote)"
_ASSIGNED = re.compile(rf"{_NAME}(?P<gap>[ ]?=(?![=~>])[ ]?)(?:{_QUOTED}|(?P<bare>[^\s\"']++))")
_COLON = re.compile(
    rf"(?P<before>(?:^|[\n{{,;\"'(\[])[ \t]*(?:- +|\? +)?|[ /]){_NAME}"
    r"(?P<gap>:[ \t]+)"
    rf"(?:(?P<block>[|>][-+\d]*[ \t]*(?:\n[ \t]+[^\n]*+)++)|{_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"']*+))"
)
_JSON = re.compile(
    r"(?P<quote>\\*+[\"'])(?P<name>[\w.\-/]{1,100}+)(?P=quote)(?P<gap>\s{0,20}:\s{0,20})(?P=quote)"
    r"(?P<quoted>(?:(?!(?P=quote))[^\n]){0,4000}+)(?P=quote)(?P<bare>)"
)
_FLAG = re.compile(
    rf"(?:(?<=\s)|(?<![\s\S]))--?{_NAME}(?P<gap>[ \t]+)(?:{_QUOTED}|(?P<bare>[^\s\"'\-|<>&;][^\s\"']*+))"
)
_YAML_PAIR = re.compile(
    r"(?:name|key):[ \t]*[\"']?(?P<name>[\w.\-/]{2,100}+)[\"']?[ \t]*\n[ \t]*(?P<gap>value:[ \t]*)"
    rf"(?:{_QUOTED}|(?P<bare>[^\s\"'|>&*{{\[#][^\n\"']*+))"
)
_SQL = re.compile(
    r"(?i:\bpassword|\bidentified[ ]+by)[ ]+(?P<quote>\\*+[\"'])(?P<quoted>(?:[^\n\"']|''){1,1000}+)(?P=quote)"
)
_ARGUMENT = re.compile(rf"--?{_NAME}=(?P<quoted>(?P<quote>)(?!.*\s-)[\s\S]+)")
_SIGNATURE = re.compile(r"(?i:(?<=[?&;])(?:sig|x-amz-signature|x-goog-signature|signature)=)(?P<bare>[^\s\"'&;]{8,}+)")

_PART_CHARS, _OVERLAP_CHARS = 65_536, 32
_NEXT = re.compile(r"[&;,](?=[\w.%+ \-]{1,60}=|\Z)|[);]+\Z")
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
        text = _ASSIGNED.sub(lambda found: _assigned(found, conceal), text)
        text = _SIGNATURE.sub(lambda found: _put(found, "bare", conceal(found["bare"])), text)
    if ":" in text:
        text = _JSON.sub(lambda found: _named(found, conceal), text)
        text = _YAML_PAIR.sub(lambda found: _named(found, conceal), text)
        text = _COLON.sub(lambda found: _colon(found, conceal), text)
    if "-" in text:
        text = _FLAG.sub(lambda found: _flag(found, conceal), text)
    return _SQL.sub(lambda found: _put(found, "quoted", conceal(found["quoted"])), text)


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
    if not verdict.is_secret or is_harmless(value.strip(), verdict, found["name"]) or is_concealed(value):
        return found[0]
    return _put(found, group, conceal(value))


def is_concealed(value: str) -> bool:
    """True for what another rule has replaced already."""
    return value.startswith(("redacted:len<=", "hmac-sha256:"))


def _assigned(found: re.Match[str], conceal: Conceal) -> str:
    verdict = judge(found["name"])
    if not verdict.is_secret:
        return _assigned_within(found, conceal)
    if found["quoted"] is not None:
        return _named(found, conceal, verdict)
    bare, start = found["bare"], found.start()
    end = len(bare)
    if stop := _NEXT.search(bare):
        end = stop.start()
    secret, rest = bare[:end], bare[end:]
    if secret.startswith("\\") or is_harmless(secret, verdict, found["name"]) or is_concealed(secret):
        shown = secret
    else:
        shown = conceal(secret)
    return (
        found.string[start : found.start("bare")] + shown + _ASSIGNED.sub(lambda inner: _assigned(inner, conceal), rest)
    )


def _assigned_within(found: re.Match[str], conceal: Conceal) -> str:
    """`--set=auth.password=x`, `jdbc:...?user=a&password=b`, `url=x;Password=y`: the value may hold the next name."""
    group, value = _value(found)
    if "=" not in value:
        return found[0]
    return _put(found, group, _ASSIGNED.sub(lambda inner: _assigned(inner, conceal), value))


def _colon(found: re.Match[str], conceal: Conceal) -> str:
    verdict = judge(found["name"])
    if not verdict.is_secret:
        return found[0]
    if found["block"] is not None:
        return _put(found, "block", conceal(found["block"]))
    if found["bare"] is None:
        return _named(found, conceal, verdict)
    bare = _bare(found, verdict)
    if not bare or is_harmless(bare.strip(), verdict, found["name"]) or is_concealed(bare):
        return found[0]
    return found[0][: found.start("bare") - found.start()] + conceal(bare) + found["bare"][len(bare) :]


def _bare(found: re.Match[str], verdict: Verdict) -> str:
    """What of the rest of the line is the value; "" if it goes on with a sentence."""
    bare, before = found["bare"], found["before"]
    if before in (" ", "(", "/") or (before[:1] in ",;" and "\n" not in before):
        word = str(bare.split(None, 1)[0]).rstrip(",;)}]")
        return "" if not verdict.is_strong or _SENTENCE.fullmatch(word) else word
    if before[:1] in "{[":
        return re.split(r"[,}\]]", bare, maxsplit=1)[0].rstrip()
    return "" if found.start() == 0 and _is_prose(bare) else bare


def _is_prose(bare: str) -> bool:
    """True for the rest of a message that begins with the name: `token: has expired at noon`."""
    words = bare.split()
    return len(words) > 2 or (len(words) == 2 and words[0].lower() in _PROSE)


def _flag(found: re.Match[str], conceal: Conceal) -> str:
    bare = found["bare"]
    if bare is not None and bare.lower().rstrip(".,;:)") in _PROSE:
        return found[0]
    return _named(found, conceal)
