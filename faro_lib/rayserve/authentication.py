"""Read the token that Ray's servers require, from the environment or a file."""

import os
from pathlib import Path


def read_token() -> str | None:
    """Ray's token from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; None if unset or disabled.

    ValueError if the file that RAY_AUTH_TOKEN_PATH names does not exist.
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
