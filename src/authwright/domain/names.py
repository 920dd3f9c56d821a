"""User names and e-mail addresses: one normal form for uniqueness and for look-up alike.

User names: UsernameCaseMapped (RFC 8265 section 3.3) without `@` and in one script. Addresses: case folded as a
whole, so that two spellings of one mailbox cannot become two accounts. Names and addresses share one unique index.
"""

import re
import unicodedata
from typing import Final, NewType

from confusable_homoglyphs import categories
from precis_i18n import get_profile

from authwright.domain.errors import InvalidName
from authwright.domain.secrets import is_subject

NameKey = NewType("NameKey", str)
"""The normal form of a user name or an address; what `NameDigest`s are made of."""

MAX_USERNAME: Final = 64
MAX_ADDRESS: Final = 254

# Words that stand in paths or would mislead people who read them.
RESERVED: Final = frozenset(
    {"me", "admin", "administrator", "root", "system", "support", "security", "authwright", "anonymous", "null", "none"}
)

_PATH_HAZARDS: Final = frozenset('/\\?#%"')
# Letters and marks that show nothing: two addresses that look alike would be two accounts.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

_VISIBLE_ASCII = re.compile("[!-~]+")
_profile = get_profile("UsernameCaseMapped")
_LOCAL = re.compile(r"[^\s@\"(),:;<>\[\]\\\x00-\x20\x7f-\x9f]{1,64}")
_DOMAIN_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?")


def normal_username(text: str) -> NameKey:
    """The normal form of a user name. Raises InvalidName, saying what is wrong without echoing the name."""
    if not 1 <= len(text) <= MAX_USERNAME:
        raise InvalidName(f"A user name has 1 to {MAX_USERNAME} characters.")
    try:
        # For ASCII the profile allows what shows, and folds as `lower` does.
        name = text.lower() if _VISIBLE_ASCII.fullmatch(text) else _profile.enforce(text)
    except UnicodeEncodeError:
        raise InvalidName("A user name has no spaces, control characters or symbols.") from None
    # Looked at in the normal form: a full-width sign is the sign.
    if "@" in name:
        raise InvalidName("A user name has no '@'; give an address as `email`.")
    if not _PATH_HAZARDS.isdisjoint(name) or name in (".", "..") or unicodedata.category(name[0]).startswith("M"):
        raise InvalidName('A user name has none of / \\ ? # % " and does not begin with a combining mark.')
    if len(name) > MAX_USERNAME:
        raise InvalidName(f"A user name has 1 to {MAX_USERNAME} characters.")
    _require_one_script(name)
    if name in RESERVED or is_subject(text) or name.startswith(("usr_", "cli_")):
        raise InvalidName("This user name is reserved.")
    return NameKey(name)


def normal_address(text: str) -> NameKey:
    """The normal form of an e-mail address. Raises InvalidName, without echoing the address."""
    if not 3 <= len(text) <= MAX_ADDRESS:
        raise InvalidName(f"An e-mail address has 3 to {MAX_ADDRESS} characters.")
    simple = _VISIBLE_ASCII.fullmatch(text) is not None
    if simple:
        text = text.lower()
    else:
        # Folding may undo the normal form (and the other way round), so the two are repeated together.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = unicodedata.normalize("NFKC", text.casefold())
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    if (
        not at
        or _LOCAL.fullmatch(local) is None
        or local.startswith(".")
        or local.endswith(".")
        or ".." in local
        # Mail programs take it for an encoded word (RFC 2047), and decode it into whatever was put there.
        or "=?" in local
        or len(labels) < 2
        or any(_DOMAIN_LABEL.fullmatch(label) is None for label in labels)
        or (not simple and any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in text))
        or _INVISIBLE.search(text)
    ):
        raise InvalidName("This is not an e-mail address.")
    if simple:
        return NameKey(text)
    _require_one_script(local)
    try:
        # An internationalised domain and its ASCII form are one domain (RFC 3490).
        ascii_domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise InvalidName("This is not an e-mail address.") from None
    return NameKey(f"{local}@{ascii_domain}")


def _require_one_script(text: str) -> None:
    if text.isascii():
        return
    scripts = categories.unique_aliases(text) - {"COMMON", "INHERITED"}
    # Japanese and Korean are written in several scripts at once; other mixtures imitate somebody else's name.
    if len(scripts) > 1 and not scripts <= {"HAN", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"}:
        raise InvalidName("A name is written in one script.")


def normal_login(text: str) -> NameKey | None:
    """The normal form of what somebody typed to log in, or None if no account can have it."""
    try:
        return normal_address(text) if "@" in text else normal_username(text)
    except InvalidName:
        return None
