"""Read the token that Ray's servers require, from the environment or a file."""

import os
from pathlib import Path


def read_token() -> str | None:
    """Return Ray's token; None if there is none or RAY_AUTH_MODE is "disabled".

    It comes from RAY_AUTH_TOKEN, else from the file at RAY_AUTH_TOKEN_PATH (ValueError if that file
    is missing), else from ~/.ray/auth_token.
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
