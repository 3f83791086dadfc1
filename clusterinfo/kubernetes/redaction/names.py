"""Which names say that a secret stands under them: of members, environment variables, flags, annotations, labels.

A name is judged by its words: `DB_PASSWORD`, `apiKey`, `example.com/token`. Its last word may make it the name of
something about a secret: `secretName`, `TOKEN_FILE`, `passwordPolicy`. The lists below were measured on the fields of
published custom resource definitions. Nothing here looks at values: see `values.py`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


def words_of(text: str) -> frozenset[str]:
    """A table of words, as they are written here."""
    return frozenset(text.split())


STRONG = words_of(
    "password passwd passphrase passcode secret token credential apikey accesskey privatekey signingkey encryptionkey "
    "authkey masterkey sharedkey accountkey connectionstring"
)
"""A name that holds one of these, its words joined, is secret, unless its last word is in `ABOUT`."""

WEAK = words_of("pass pw pwd creds cookie psk pat jwt pin authorization kubeconfig")
"""So is a name whose last word is one of these; they mean other things too, so objects under them are no secrets."""

ALONE = words_of("restuserkey masterauth sig")
"""Whole names: of GlusterFS's StorageClasses, of Redis, of Azure's shared access signatures."""

PASSING = ("bypass", "compass", "trespass", "surpass", "encompass", "overpass", "underpass")

KEY_KINDS = words_of(
    "api access private signing encryption master shared auth account admin storage ssh rsa session secret client hmac"
)
"""`...Key` is secret with one of these in it; of an environment variable, `..._KEY` without one of `OPEN_KEYS`."""

OPEN_KEYS = words_of(
    "public partition sort primary foreign routing object cache group hash label annotation topology node map config "
    "bucket event index row column lookup sharding shard search default tag ref s3 message field product "
    "translation locale sort storage_class idempotency dedup host authorized known"
)

NUMBERS = words_of("password passwd passphrase passcode pass pw pwd pin")
"""As a last word: a number is a secret, too. Anywhere else numbers, and booleans everywhere, are none."""

COUNTED = words_of("max min per num total limit count maximum minimum")
"""Anywhere in a name: it counts or bounds secrets (`max_tokens`, `TOKENS_PER_MINUTE`)."""

ABOUT = words_of(
    # what it is called, where it lies, what it is like
    "name names namespace namespaces ref refs reference references selector selectors file files filename path paths "
    "dir directory mount mounts type types class kind kinds policy policies url urls uri uris endpoint endpoints host "
    "hostname port region zone domain issuer issuers audience audiences template templates store stores provider "
    "providers version versions location format encoding algorithm alg header headers prefix suffix property "
    "properties field fields label labels annotation annotations arn arns id ids identifier location mode modes "
    "status state phase condition conditions reason message "
    # how many, how long, when
    "enabled disabled required allowed seconds minutes hours days ms milliseconds expiration expiry expires expire ttl "
    "lifetime lifespan length len size count max min per limit limits timeout interval period duration age rotation "
    "date time timestamp at renew renewal refresh retries attempts threshold rate quota quotas fill "
    # who has to do with it
    "user users username usernames env spec manager managers backend backends controller operator driver plugin engine "
    "engines generator generators reviewer review reviews request requests requester response validator validation "
    "verifier verification injector webhook bucket buckets volume volumes usage usages role roles rolebinding scope "
    "scopes claim claims method methods strategy behavior behaviour complexity expression expressions rule rules "
    "checksum stdin digest hash fingerprint thumbprint hint description title placeholder lookup exchange "
    "introspection sync from to source sources kubernetes samesite attributes options match matches resource "
    "resources agent"
)
"""As a last word: the name is of something about a secret. `passwordHash` is the exception: it can be guessed at."""

NEEDLES = (
    *("pass", "pw", "secret", "token", "cred", "cookie", "psk", "pat", "pin", "jwt", "key", "auth"),
    *("connection", "sig", "kubeconfig", "kube-config", "kube_config", "kube.config"),
)
"""In lower case: one of them is in every name that is secret, and what holds none is passed over unread."""

KEPT = words_of(
    "httptokens serviceaccounttoken serviceaccounttokens automountserviceaccounttoken secretsmanager encryptedsecret "
    "httpcookie checkpointtoken continuetoken nexttoken paginationtoken canceltoken idempotencytoken bootstraptokens "
    "clienttokenid secretstoresyncedresourceversion"
)
"""Whole names, their words joined, that look secret and are none: fields of Kubernetes and of known CRDs."""

REFERRED = words_of(
    "existing pull tls ssl cert certificate certificates ca image registry docker ref mtls htpasswd auth backup "
    "credentials credential creds monitoring user users kubeconfig bootstrap dockerconfig"
)
"""Before a last `secret`: the value is the name of a Secret if it can be one (`existingSecret: db`)."""

_OTHER = re.compile(r"tokeni[sz]\w*|secretar(?:y|ies)|passwordless|^agentinject\w*")
"""Words with a telling one in them that mean something else; Vault's agent, whose annotations name paths."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CLEAN = re.compile(r"[\w.\-/]{2,200}", re.ASCII)
_ENVIRONMENT = re.compile(r"_*[A-Z][A-Z0-9_]*")
_CHECKSUM = re.compile(r"(?:^|[./])(?:checksum|hash|sha256|rollme)s?(?:\.[\w.-]*)?/")
_NEEDLE = re.compile("|".join(needle + "(?!h)" * (needle == "pat") for needle in NEEDLES))
"""`pat` is none in `path`, as in `needles.py`."""
_LONG_ABOUT = tuple(sorted(word for word in ABOUT if len(word) > 3))


class Verdict(NamedTuple):
    """What a name says of the value under it."""

    is_secret: bool
    is_strong: bool = False
    """All strings in an object under it are secret."""
    takes_numbers: bool = False
    may_refer: bool = False
    """So is a value that says that it names a Secret (`secret: gh-secret`)."""
    refers: bool = False
    """A value that can be the name of a Secret, or of a key in one, is none."""
    is_environment: bool = False


NOTHING = Verdict(is_secret=False)


@lru_cache(maxsize=4096)
def judge(name: str) -> Verdict:
    """What `name` says; of a name with a `/`, what the part behind the last one says."""
    if not _CLEAN.fullmatch(name) or not _NEEDLE.search(name.lower()) or _CHECKSUM.search(name):
        return NOTHING
    local = name.rpartition("/")[2]
    words = [word.lower() for word in _WORD.findall(local)]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    joined = _OTHER.sub("", "".join(words))
    if not words or joined in KEPT or not COUNTED.isdisjoint(words) or _is_about(words, joined):
        return NOTHING
    return _judge_words(words, joined, is_environment=bool(_ENVIRONMENT.fullmatch(local)))


def _is_about(words: list[str], joined: str) -> bool:
    last = words[-1]
    if last in ("hash", "hashes"):
        return not any(word in joined for word in ("password", "passwd"))
    return last in ABOUT or (len(words) == 1 and last.endswith(_LONG_ABOUT))


def _judge_words(words: list[str], joined: str, *, is_environment: bool) -> Verdict:
    last = words[-1]
    is_key = last in ("key", "keys")
    strong = any(word in joined for word in STRONG)
    weak = last in WEAK or joined in ALONE or joined.endswith(("cookie", "kubeconfig"))
    weak = weak or (last.endswith("pass") and not last.endswith(PASSING))
    keyed = is_key and not KEY_KINDS.isdisjoint(words)
    if is_environment and len(words) > 1 and not strong:
        keyed = keyed or (is_key and OPEN_KEYS.isdisjoint(words)) or last == "auth"
    if not (strong or weak or keyed) or (is_key and "public" in words):
        return NOTHING
    return Verdict(
        is_secret=True,
        is_strong=strong and (last.rstrip("s") in _HEADS or joined.endswith(_HEAD_ENDS)),
        takes_numbers=last in NUMBERS or last.endswith(("password", "passwd")),
        refers=not is_environment and _refers(words, joined, is_key=is_key),
        may_refer=not is_environment and last == "secret",
        is_environment=is_environment,
    )


_HEADS = words_of("password passwd passphrase passcode secret token credential")
_HEAD_ENDS = tuple(STRONG | {word + "s" for word in STRONG})
_NAMED_KEYS = ("secret", "token", "password", "passwd", "user", "username", "credential", "credentials", "passphrase")


def _refers(words: list[str], joined: str, *, is_key: bool) -> bool:
    """True for `existingSecret`, `secrets`, and for `secretKey` and `passwordKey`, which name a key of a Secret."""
    if is_key:
        return joined.rstrip("s").removesuffix("key").endswith(_NAMED_KEYS)
    return words[-1] == "secrets" or (words[-1] == "secret" and not REFERRED.isdisjoint(words[:-1]))


def looks_secret(name: str) -> bool:
    """True for `DB_PASSWORD`, `apiKey`, `token`; False for `secretName`, `tokenPath`, `passwordSecretRef`."""
    return judge(name).is_secret


EXEMPT = words_of("key kind optional apiversion group items parameter")


@lru_cache(maxsize=4096)
def is_exempt(name: str) -> bool:
    """True for a member of an object under a secret name that says what or where the secret is: `name`, `path`."""
    words = [word.lower() for word in _WORD.findall(name.rpartition("/")[2])]
    return bool(words) and (words[-1] in ABOUT or words[-1] in EXEMPT or "".join(words) in EXEMPT)
