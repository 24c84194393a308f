"""The gateway's token: a file that only its owner reads, compared in constant time. What it is not: an account, or encryption."""

from __future__ import annotations

import hmac
import os
import stat
from typing import Final

MIN_CHARS: Final = 16
MAX_BYTES: Final = 4096
SCHEME: Final = "bearer "


class TokenError(ValueError):
    """The token cannot be used; the message names the file and the remedy."""


def read_token(path: str) -> bytes:
    """The token in a file. Raises TokenError: absent, readable by others, of somebody else, too short, or no single word."""
    remedy = f"make one: (umask 077; openssl rand -hex 32 > {path})"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TokenError(f"gateway.token_file: {path}: {(error.strerror or 'cannot be read').lower()}: {remedy}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o077:
            what = "others may read it, or it is no file of yours"
            raise TokenError(f"gateway.token_file: {path}: {what}: chmod 600 a file of your own")
        raw = os.read(fd, MAX_BYTES + 1).strip()
    finally:
        os.close(fd)
    word = raw.isascii() and raw.decode("ascii").isprintable() and b" " not in raw
    if not word or not MIN_CHARS <= len(raw) <= MAX_BYTES:
        raise TokenError(f"gateway.token_file: {path}: it holds no word of at least {MIN_CHARS} characters: {remedy}")
    return raw


def is_given(authorization: str, token: bytes) -> bool:
    """Whether an Authorization header carries the token."""
    scheme, given = authorization[: len(SCHEME)].lower(), authorization[len(SCHEME) :].strip()
    return scheme == SCHEME and hmac.compare_digest(given.encode("latin-1"), token)
