"""Print the newest versions that pyproject.toml allows, as a constraints file."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

EXTRAS = ".[label,train,ray,report,demo,dev]"


def main() -> None:
    """Let pip resolve everything without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), EXTRAS]
        subprocess.run(command, check=True, stdout=sys.stderr)
        chosen = json.loads(report.read_text())["install"]
    rows = {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"] for item in chosen}
    rows.pop("utility-gate")
    print("# The exact versions that CI, `make` and the image install. Made by `make constraints`.")
    for name in sorted(rows):
        print(f"{name}=={rows[name]['version']}")


if __name__ == "__main__":
    main()
