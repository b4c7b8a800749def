"""Print requirements.lock: what the service's image installs, with the hashes of all its files.

The versions come from constraints.txt, the names from pyproject.toml and the metadata of what is
installed, the hashes from the package index. Run it where the project is installed (`make lock`).
"""

import argparse
import importlib.metadata
import json
import re
import tomllib
import urllib.parse
import urllib.request
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).parents[1]
HEAD = """\
# What the image installs: versions as in constraints.txt, with the hashes of every file of each, so
# that any platform finds its own among them. Made by `make lock`.
"""
_JSON = "application/vnd.pypi.simple.v1+json"


def needed() -> list[str]:
    """Names of everything that a plain install brings here, and of what builds the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {canonicalize_name(Requirement(r).name) for r in project["build-system"]["requires"]}
    waiting = [Requirement(line) for line in project["project"]["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        extras = requirement.extras or {""}
        for line in importlib.metadata.requires(name) or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(inner)
    return sorted(found)


def pinned() -> dict[str, str]:
    """Name to version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def read_lock(text: str) -> dict[str, tuple[str, list[str]]]:
    """Name to version and SHA-256 digests."""
    blocks = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", text, re.M)
    return {name: (version, re.findall("[0-9a-f]{64}", hashes)) for name, version, hashes in blocks}


def hashes_of(index: str, name: str, version: str) -> list[str]:
    """The SHA-256 digests of all files of a version, from the index' JSON or its HTML."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers={"Accept": _JSON})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        body, kind = answer.read().decode(), answer.headers.get_content_type()
    files = _from_json(body) if kind == _JSON else _from_html(body)
    hashes = {digest for file, digest in files if _version(file) == version}
    if not hashes:
        raise SystemExit(f"{name}: expected files of version {version} in the index, found none")
    return sorted(hashes)


def _from_json(body: str) -> list[tuple[str, str]]:
    return [(file["filename"], file["hashes"]["sha256"]) for file in json.loads(body)["files"]]


def _from_html(body: str) -> list[tuple[str, str]]:
    links = re.findall(r'href="([^"#]*)#sha256=([0-9a-f]{64})"', body)
    return [(urllib.parse.unquote(link.rsplit("/", 1)[-1]), digest) for link, digest in links]


def _version(file: str) -> str:
    """The version that a file's name states; "" for formats that pip no longer installs."""
    try:
        parse = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
        return str(parse(file)[1])
    except ValueError:
        return ""


def main() -> None:
    """Ask the index for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", default="https://pypi.org/simple", help="a package index")
    index = parser.parse_args().index
    versions = pinned()
    print(HEAD, end="")
    for name in needed():
        hashes = hashes_of(index, name, versions[name])
        print(
            " \\\n    ".join([f"{name}=={versions[name]}", *(f"--hash=sha256:{h}" for h in hashes)])
        )


if __name__ == "__main__":
    main()
