"""Validate an RO-Crate without a network: `validate_crate.py FOLDER [PROFILE]`.

It runs in the validator's environment. The context of RO-Crate 1.1 is not downloaded: that of 1.3
in the package rocrate stands for it, and the two checks that it can be fetched are left out.
"""

import json
import sys
from pathlib import Path

import rocrate
from rdflib.plugins.shared.jsonld.context import Context
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

CONTEXT = Path(rocrate.__file__).with_name("data") / "ro-crate.jsonld"
NEEDS_A_NETWORK = ("ro-crate-1.1_3.1", "ro-crate-1.1_3.2")
download = Context._fetch_context


def at_hand(self, source, *arguments):
    """The context of RO-Crate from the package, and any other as before."""
    if str(source).startswith("https://w3id.org/ro/crate/"):
        # Version 1.1 names the terms of Bioschemas so.
        text = CONTEXT.read_text().replace("bioschemas.org/terms/", "bioschemas.org/")
        return json.loads(text)
    return download(self, source, *arguments)


def main(folder: str, profile: str = "workflow-run-crate") -> int:
    Context._fetch_context = at_hand
    settings = ValidationSettings(
        rocrate_uri=folder,
        profile_identifier=profile,
        requirement_severity=Severity.REQUIRED,
        skip_availability_check=True,
    )
    issues = services.validate(settings).get_issues()
    found = [issue for issue in issues if issue.check.identifier not in NEEDS_A_NETWORK]
    for issue in found:
        print(f"{issue.check.identifier}: {issue.message}")
    print(f"{folder}: {'NOT valid' if found else 'valid'} ({profile})")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
