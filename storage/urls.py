"""URLs of object stores as text: which there are, what is wrong with one, and the path of a file:// one. Nothing heavy here."""

import re
from pathlib import Path
from urllib.parse import unquote

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(text: str) -> bool:
    """Whether it begins as a URL does, of whatever scheme."""
    return bool(_URL.match(text))


def problem(url: str) -> str:
    """Why a URL cannot be used, without quoting what may be a password; empty where it can."""
    if not is_url(url):
        return "is no URL"
    scheme = url.partition("://")[0]
    if scheme == "file":
        return "" if re.match(r"file:///[^/]", url) else "is no file:///folder/file"
    if scheme not in SCHEMES:
        return f"begins with {scheme}://, expected one of {', '.join(f'{one}://' for one in SCHEMES)} or a path"
    place = url.partition("://")[2].partition("/")[0]
    if ("@" in place and not scheme.startswith("abfs")) or ":" in place:
        return "has a user, password or port in it: credentials come from the environment (docs/howto/s3.md)"
    return "" if place else "names no bucket"


def plain(text: str) -> str:
    """The path of a file:// URL; anything else as it is."""
    return str(Path(unquote(text.removeprefix("file://")))) if text.startswith("file:///") else text


def split(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a URL without a problem."""
    scheme, _, rest = url.partition("://")
    place, _, key = rest.partition("/")
    return scheme, place, key
