"""Judge what the program is made of: known vulnerabilities, by the report that pip-audit wrote, and licences.

`PYTHON audit.py LOCKED REPORT`: PYTHON is of an environment that has what the file LOCKED names. A finding fails, and
so does what could not be asked: a service that does not answer, or knows some packages and not another, says nothing
about it, and what was not looked up must not pass for sound. One that knows none at all is a mirror of packages without
the findings: whoever works behind it cannot ask anybody, and is told so.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# All let Apache-2.0 software use and ship them; MPL 2.0 asks for its own files' sources alone, which PyPI has.
ALLOWED = re.compile(
    r"Apache[- ]2\.0|Apache (Software )?License.*|MIT|MIT License|BSD(-[23]-Clause)?|BSD License|ISC|ISC License.*|"
    r"PSF-2\.0|Python Software Foundation License|MPL-2\.0|Mozilla Public License 2\.0.*"
)


def vulnerabilities(report: Path) -> list[str]:
    """One line for each finding in the report, and for each package that was not looked up."""
    if not report.exists():
        return ["not audited: the vulnerability service did not answer"]
    packages = json.loads(report.read_text())["dependencies"]
    if packages and not any("vulns" in package for package in packages):
        print(f"NOT AUDITED: the package index knows findings about none of {len(packages)} packages", file=sys.stderr)
        return []
    found = [line for package in packages for line in _about(package)]
    return found if packages else ["not audited: the report names no package"]


def _about(package: dict[str, Any]) -> list[str]:
    if "vulns" not in package:
        return [f"{package['name']}: not audited: {package.get('skip_reason', 'the service does not know it')}"]
    return [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for found in package["vulns"]
    ]


def licence(of: metadata.PackageMetadata) -> str:
    """What a distribution says of itself: an SPDX expression, else its classifiers, else a short text."""
    classifiers = [
        entry.split(" :: ")[-1] for entry in of.get_all("Classifier") or [] if entry.startswith("License ::")
    ]
    return of.get("License-Expression") or " AND ".join(classifiers) or (of.get("License") or "").strip()[:80]


def is_allowed(text: str) -> bool:
    """Every part of AND, and one part of each OR, is on the list."""
    parts = [re.split(r"\s+OR\s+", part) for part in re.split(r"\s+AND\s+", text)]
    return all(any(ALLOWED.fullmatch(choice.strip(" ()")) for choice in part) for part in parts)


def licences(locked: Path) -> list[str]:
    """One line for each locked and installed package whose licence is not on the list."""
    names = re.findall(r"^([\w.-]+)==", locked.read_text(), re.MULTILINE)
    installed = {found.metadata["Name"].lower().replace("_", "-"): found for found in metadata.distributions()}
    judged = {name: licence(installed[name].metadata) for name in names if name in installed}  # here, on this platform
    print(f"licences of {len(judged)} of {len(names)} packages", file=sys.stderr)
    return [f"{name}: licence {text!r} is not on the list" for name, text in judged.items() if not is_allowed(text)]


def main() -> None:
    locked, report = map(Path, sys.argv[1:3])
    findings = vulnerabilities(report) + licences(locked)
    print("\n".join(findings) or "nothing found")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
