"""Read the token that Ray's servers require, from the environment or a file."""

import os
from pathlib import Path


def read_token() -> str | None:
    """Return Ray's token from RAY_AUTH_TOKEN, else from the file at RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token.

    None if there is no token or RAY_AUTH_MODE is "disabled". ValueError if the file at RAY_AUTH_TOKEN_PATH is missing.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if named and not path.is_file():
        raise ValueError(f"RAY_AUTH_TOKEN_PATH={named}: no such file; it must hold Ray's token")
    return path.read_text().strip() if path.is_file() else None
